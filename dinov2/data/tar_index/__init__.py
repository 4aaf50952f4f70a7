"""The index of tiles inside a tar: made, joined, checked and read.

The tar is never unpacked, and neither it nor the files beside it are trusted. The names below are the public surface;
each is imported when it is asked for, since half of the time that a small tar takes is that of imports.
"""

from importlib import import_module
from typing import Any

from dinov2.data.tar_index.fingerprint import fingerprint  # here and now, since its module has the same name

_NAMES = {
    "concat": ("COHORTS", "JOINED", "ConcatReport", "ConcatRequest", "concat_entries", "joined_cohorts"),
    "crc": ("crc_name", "load_crc32"),
    "errors": ("ArchiveError", "GroupError", "LabelError", "SelectionError", "SideFileError", "StaleIndexError"),
    "fingerprint": ("check_entries", "check_fingerprint", "check_tars", "entries_name"),
    "group_files": ("GROUP_KINDS", "GroupFiles", "load_groups"),
    "groups": ("GROUP_COLUMNS", "GroupReport", "GroupRequest", "group_entries"),
    "infer": ("IndexReport", "IndexRequest", "infer_entries"),
    "labels": ("LabelColumns",),
    "name_files": ("load_class_ids", "load_names"),
    "numpy_files": ("load_entries", "load_vector"),
    "prepare": ("PrepareRequest", "prepare_dataset"),
    "verify": ("VerifyReport", "VerifyRequest", "verify_dataset"),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = ["fingerprint", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
