"""From what a person names to a file: `resolve_weights`."""

import hashlib
import logging
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dinov2.errors import UserError
from dinov2.utils.checkpoint.files import hash_file

from .cache import cache_folder, is_offline
from .download import check_https, fault_of, fetch, open_https
from .registry import PublishedWeights, check_known, is_url, published, show_notice
from .transfer import Opener

logger = logging.getLogger("dinov2")

_CHECKSUM = "#sha256="


def resolve_weights(
    name: str | Path, *, offline: bool | None = None, progress: bool = True, opener: Opener = open_https
) -> Path:
    """The file or folder of some weights, downloaded if it has to be; the licence of known ones is logged.

    Args:
        name: a name of `python -m dinov2.hub list`, an https address, perhaps with "#sha256=..." at its end, or a path.
        offline: use only what has been downloaded before; None: as the variable DINOV2_OFFLINE says.
    Raises:
        UserError: if there is no such thing, or it cannot be fetched.
    """
    check_weights(name)
    name = str(name)
    if name in published():
        entry = published()[name]
        show_notice(name)
        target = cache_folder() / name.replace("/", "_") / _file_name(entry.urls[0])
        return _fetched(entry.urls, target, entry.sha256, offline, progress, opener)
    if is_url(name):
        url, _, checksum = name.partition(_CHECKSUM)
        folder = cache_folder() / f"url-{hashlib.sha256(url.encode()).hexdigest()[:16]}"
        return _fetched((url,), folder / _file_name(url), checksum, offline, progress, opener)
    return Path(name)


def check_weights(name: str | Path) -> None:
    """Whether `resolve_weights` can know what is meant, found out without the network.

    Raises:
        UserError: if not.
    """
    name = str(name)
    check_known(name)
    if name in published():
        _check_available(published()[name])
    elif is_url(name):
        check_https(name)
        checksum = name.partition(_CHECKSUM)[2]
        if _CHECKSUM in name and not re.fullmatch("[0-9a-fA-F]{64}", checksum):
            raise UserError(f"{name}: expected 64 hexadecimal digits after {_CHECKSUM}")


def weights_digest(path: Path) -> str:
    """What tells weights apart: the SHA-256 of a file, or of the names and sums of all files of a folder."""
    if path.is_file():
        return hash_file(path).sha256
    lines = [f"{file.name} {hash_file(file).sha256}\n" for file in sorted(path.iterdir()) if file.is_file()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _check_available(entry: PublishedWeights) -> None:
    if entry.by_hand:
        raise UserError(
            f"{entry.name} is handed out at {entry.page} only ({entry.licence}): download the file there, and give its "
            "path instead"
        )


def _fetched(
    urls: tuple[str, ...], target: Path, sha256: str, offline: bool | None, progress: bool, opener: Opener
) -> Path:
    fault = fault_of(target, sha256) if target.is_file() else f"{urls[0]} has not been downloaded"
    if not fault:
        return target
    if is_offline() if offline is None else offline:
        raise UserError(
            f"{fault}, and downloads are switched off (DINOV2_OFFLINE or --offline). Run "
            f"python -m dinov2.hub download where there is a network, or put the file at {target}"
        )
    if target.is_file():
        logger.warning(f"{fault}. It is downloaded again")
    return fetch(urls, target, sha256=sha256, opener=opener, progress=progress)


def _file_name(url: str) -> str:
    """The last part of an address as the name of a file, short enough for any disk and for what is added to it."""
    name = re.sub(r"[^\w.-]", "_", Path(unquote(urlsplit(url).path)).name).lstrip(".") or "weights"
    suffix = Path(name).suffix if len(Path(name).suffix.encode()) <= 16 else ""
    return name.removesuffix(suffix).encode()[:100].decode("utf-8", "ignore") + suffix
