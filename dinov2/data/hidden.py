"""Which files and folders nobody means as pictures, though pictures may be in them: one rule for folders and tars.

Editors, viewers and operating systems keep copies, previews and waste beside the files they belong to. A preview
that is read as a tile counts that tile twice, in a size that it never had.
"""

# Besides all that begins with a dot, such as .ipynb_checkpoints, .thumbnails, .Trash-1000 and the "._x.png" of macOS.
# In lower case.
_FOLDERS = frozenset(
    {
        "__macosx",  # zip files from macOS
        "@eadir",  # previews on Synology
        "#recycle",
        "#snapshot",
        "@recycle",  # QNAP
        "@recently-snapshot",
        "~snapshot",  # NetApp
        "$recycle.bin",  # Windows
        "recycler",
        "system volume information",
        "lost+found",  # what fsck saves
        "network trash folder",  # macOS on file servers
        "temporary items",
    }
)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is left out, with all that is in it."""
    return (name.startswith(".") and name not in (".", "..")) or name.lower() in _FOLDERS


def in_hidden(path: str) -> bool:
    """Whether any part of a path is hidden; "." and ".." are not."""
    return any(map(is_hidden, path.split("/")))
