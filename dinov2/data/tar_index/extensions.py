"""Extended headers: what GNU tar (types L and K) and pax (types x and g) say about the next member.

Source: GNU tar manual, "Basic Tar Format"; POSIX.1-2001, "pax Header Block". Differs from Python's tarfile:
members stored in pieces (sparse files, volumes), two headers that could contradict each other, and global
headers that would rename or resize every member are refused.
"""

from dataclasses import dataclass

from dinov2.data.tar_index.errors import show_name
from dinov2.data.tar_index.headers import LARGEST_SIZE, parse_pax

TIMES = frozenset({b"mtime", b"atime", b"ctime"})
VOLUME = {b"GNU.volume.filename", b"GNU.volume.size", b"GNU.volume.offset"}

# Reasons and remedies.
SPARSE = (
    "it is a sparse file, whose bytes are not stored in one piece, since its holes are left out",
    "bsdtar, the tar of macOS, makes such members by itself, GNU tar with --sparse (-S). Pack the files again with "
    "bsdtar --no-read-sparse -chf, with GNU tar without -S, or with scripts/prepare_dataset.py",
)
OTHER_VOLUME = (
    "it continues a member of another volume",
    "This is one of several volumes (tar -M). Unpack them together (tar -xMf FIRST -f SECOND ...) and pack all files "
    "into one tar",
)


@dataclass(slots=True)
class Extension:
    """What the extended headers before a member say about it; None where they say nothing.

    Attributes:
        kinds: the headers seen, in order: L and K for GNU long names, x for pax.
    """

    path: bytes | None = None
    target: bytes | None = None
    size: int | None = None
    kinds: str = ""

    def take_in(self, payload: bytes, letter: str) -> None:
        """Note what the payload of one extended header says.

        Args:
            letter: L, K or x.
        Raises:
            ValueError: it cannot be taken at its word; the text is the reason.
        """
        if letter == "L":
            self.path = payload.partition(b"\0")[0]
            return
        if letter == "K":
            self.target = payload.partition(b"\0")[0]
            return
        records = parse_pax(payload)
        if records.keys() <= TIMES:
            return
        _refuse_pieces(records)
        self.path, self.target = records.get(b"path") or None, records.get(b"linkpath") or None
        if records.get(b"size"):
            self.size = _pax_size(records[b"size"])
        if b"\0" in (self.path or b"") or b"\0" in (self.target or b""):
            raise ValueError("its extended header has a name with a NUL byte")


def _pax_size(digits: bytes) -> int:
    """The decimal size of a pax record."""
    if not digits.isdigit() or len(digits) > 19 or int(digits) > LARGEST_SIZE:
        raise ValueError(f"its extended header has the impossible size {show_name(digits)}")
    return int(digits)


def _refuse_pieces(records: dict[bytes, bytes]) -> None:
    """Refuse members that are not stored in one piece; what else a tool says, such as tarlz a CRC, does not matter."""
    if any(keyword.startswith(b"GNU.sparse.") or keyword == b"SCHILY.realsize" for keyword in records):
        raise ValueError(*SPARSE)
    if records.keys() & VOLUME:
        raise ValueError(*OTHER_VOLUME)


def refuse_global(payload: bytes) -> None:
    """A global header may carry comments and times, not a name or a size for every member after it."""
    records = parse_pax(payload)
    _refuse_pieces(records)
    for keyword in (b"path", b"linkpath", b"size"):
        if keyword in records:
            raise ValueError(
                f"a global extended header sets {show_name(keyword)} for all members, which no tile set can mean"
            )


def unknown_kind(kind: int) -> tuple[str, ...]:
    """Why a member of this type byte is refused, and what to do if that is known."""
    known = {ord("S"): SPARSE, ord("M"): OTHER_VOLUME}
    return known.get(kind, (f"its member type {show_name(bytes([kind]))} is unknown",))
