"""`class-ids.npy`: what the class indices in the first column of entries mean, for all entries of a folder.

Row i holds (label, class name) of class index i. Query and test entries lie in one folder and share the file,
so a second run must not give a class index another meaning under the feet of the first.
"""

from pathlib import Path

from dinov2.data.tar_index.errors import LabelError, SideFileError, show_name, show_names
from dinov2.data.tar_index.fingerprint import Fingerprint, fingerprint, read_records
from dinov2.data.tar_index.labels import ClassTable

CLASS_IDS = "class-ids.npy"


def settle_class_ids(folder: Path, classes: ClassTable, *, entries: str) -> ClassTable | None:
    """The table in `folder` if these labels have to, and can, use it; None if a new one may be written.

    Args:
        folder: where `class-ids.npy` lies or will lie.
        classes: of the csv that is being indexed.
        entries: the entries file that is being written, whose own old labels do not matter.
    Raises:
        LabelError: other entries need the table as it is, and it does not have these labels.
    """
    path = folder / CLASS_IDS
    if not path.exists():
        return None
    dependent = _dependent_entries(folder, fingerprint(path), but=entries)
    if not dependent:
        return None
    known = _readable(path)
    if known is not None and set(classes) <= set(known):
        return known
    strange = [f"{label}: {name}" for label, name in classes if (label, name) not in set(known or [])]
    raise LabelError(
        f"{show_name(path)} gives other classes than this csv (not in it: {show_names(strange)}), "
        f"and the labels of {show_names(dependent)} depend on it. "
        "Index all splits with one csv that has every class, or write into another --output_root; "
        f"to start over, delete {show_name(CLASS_IDS)} and those entries."
    )


def _dependent_entries(folder: Path, class_ids: Fingerprint, *, but: str) -> list[str]:
    """Entries files in `folder`, other than one, whose labels refer to the table with this fingerprint."""
    found = set()
    for json_path in sorted(folder.glob("*index.json")):
        name = json_path.name.removesuffix("index.json").removesuffix("_") or None
        try:
            records = read_records(folder, name)
        except SideFileError:
            continue
        found |= {
            file
            for file, several in records.items()
            if file != but
            and (folder / file).exists()
            and any(record.needs.get(CLASS_IDS) == class_ids for record in several)
        }
    return sorted(found)


def _readable(path: Path) -> ClassTable | None:
    from dinov2.data.tar_index.name_files import load_class_ids  # only where there are labels already

    try:
        return load_class_ids(path)
    except SideFileError:
        return None
