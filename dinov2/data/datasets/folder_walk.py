"""Finding the images below a folder."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from dinov2.data.hidden import is_hidden
from dinov2.errors import UserError

logger = logging.getLogger("dinov2")

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")


def walk_images(root: Path, *, recursive: bool = True, extensions: tuple[str, ...] = IMAGE_EXTENSIONS) -> Iterator[str]:
    """Paths of the images below a folder, relative to it, with "/" between folders.

    The images of a folder come in the order of their names, then its subfolders in the order of theirs. Hidden ones are
    left out, and counted in the log. Links are followed, except those to a folder that they lie in.

    Args:
        extensions: in lower case; those of the files may be in any.
    Raises:
        UserError: if a folder cannot be listed.
    """
    pending: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]  # folders, and the inodes of those above
    hidden: list[str] = []
    while pending:
        prefix, above = pending.pop()
        inode = _inode(root / prefix)
        if inode in above:
            logger.warning(f"{root / prefix} is a link to a folder that it lies in; it is left out")
            continue
        images, folders = _list(root / prefix, extensions)
        hidden += [prefix + name for name in (*images, *(folders if recursive else ())) if is_hidden(name)]
        yield from (prefix + name for name in images if not is_hidden(name))
        if recursive:
            pending.extend((f"{prefix}{name}/", (*above, inode)) for name in reversed(folders) if not is_hidden(name))
    if hidden:
        logger.warning(
            f"{root}: {len(hidden):,} hidden folders and images, such as {hidden[0]}, are left out. If they are meant, "
            "rename them"
        )


def list_images(root: Path) -> list[str]:
    """All of `walk_images` at once."""
    return list(walk_images(root))


def class_of(name: str) -> str:
    """The first folder of a relative path; empty where there is none."""
    folder, slash, _ = name.partition("/")
    return folder if slash else ""


def _list(folder: Path, extensions: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Names of the images in a folder and of its subfolders, sorted."""
    images, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if _is_folder(entry):
                    folders.append(entry.name)
                elif entry.name.lower().endswith(extensions) and _is_file(entry):
                    images.append(entry.name)
    except OSError as error:
        raise _unreadable(folder, error) from error
    return sorted(images), sorted(folders)


# Of entries that are no links, the listing tells the kind already, and asking the storage again would take time.


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir()


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether it is one, or a link to one that is missing, which is found out when it is read."""
    if entry.is_symlink():
        target = Path(entry.path)
        return target.is_file() or not target.exists()
    return entry.is_file()


def _inode(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError as error:
        raise _unreadable(folder, error) from error
    return status.st_dev, status.st_ino


def _unreadable(folder: Path, error: OSError) -> UserError:
    return UserError(f"folder {folder} cannot be listed: {error.strerror}")
