"""The index of tiles inside a tar: made, joined, checked and read.

The tar is never unpacked, and neither it nor the files beside it are trusted. The names below are the public
surface.
"""

from dinov2.data.tar_index.concat import COHORTS, JOINED, ConcatReport, ConcatRequest, concat_entries, joined_cohorts
from dinov2.data.tar_index.crc import crc_name, load_crc32
from dinov2.data.tar_index.errors import (
    ArchiveError,
    GroupError,
    LabelError,
    SelectionError,
    SideFileError,
    StaleIndexError,
)
from dinov2.data.tar_index.fingerprint import check_entries, check_fingerprint, check_tars, entries_name, fingerprint
from dinov2.data.tar_index.group_files import KINDS as GROUP_KINDS
from dinov2.data.tar_index.group_files import GroupFiles, load_groups
from dinov2.data.tar_index.groups import GROUP_COLUMNS, GroupReport, GroupRequest, group_entries
from dinov2.data.tar_index.infer import IndexReport, IndexRequest, infer_entries
from dinov2.data.tar_index.labels import LabelColumns
from dinov2.data.tar_index.name_files import load_class_ids, load_names
from dinov2.data.tar_index.numpy_files import load_entries, load_vector
from dinov2.data.tar_index.prepare import PrepareRequest, prepare_dataset
from dinov2.data.tar_index.verify import VerifyReport, VerifyRequest, verify_dataset

__all__ = [
    "COHORTS",
    "GROUP_COLUMNS",
    "GROUP_KINDS",
    "JOINED",
    "ArchiveError",
    "ConcatReport",
    "ConcatRequest",
    "GroupError",
    "GroupFiles",
    "GroupReport",
    "GroupRequest",
    "IndexReport",
    "IndexRequest",
    "LabelColumns",
    "LabelError",
    "PrepareRequest",
    "SelectionError",
    "SideFileError",
    "StaleIndexError",
    "VerifyReport",
    "VerifyRequest",
    "check_entries",
    "check_fingerprint",
    "check_tars",
    "concat_entries",
    "crc_name",
    "entries_name",
    "fingerprint",
    "group_entries",
    "infer_entries",
    "joined_cohorts",
    "load_class_ids",
    "load_crc32",
    "load_entries",
    "load_groups",
    "load_names",
    "load_vector",
    "prepare_dataset",
    "verify_dataset",
]
