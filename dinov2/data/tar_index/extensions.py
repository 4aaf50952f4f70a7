"""Extended headers: what GNU tar (types L and K) and pax (types x and g) say about the next member.

Source: GNU tar manual, "Basic Tar Format"; POSIX.1-2001, "pax Header Block". Differs from Python's tarfile:
members stored in pieces (sparse files, volumes), two headers that could contradict each other, and global
headers that would rename or resize every member are refused.
"""

from dataclasses import dataclass

from dinov2.data.tar_index.errors import show_name
from dinov2.data.tar_index.headers import LARGEST_SIZE, parse_pax

TIMES = frozenset({b"mtime", b"atime", b"ctime"})


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
        _refuse_foreign(records)
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


def _refuse_foreign(records: dict[bytes, bytes]) -> None:
    """Refuse members that are not stored in one piece."""
    for keyword in records:
        if keyword[:4] == b"GNU." or keyword == b"SCHILY.realsize":
            raise ValueError(unknown_kind(ord("M" if keyword.startswith(b"GNU.volume.") else "S")))


def refuse_global(payload: bytes) -> None:
    """A global header may carry comments and times, not a name or a size for every member after it."""
    records = parse_pax(payload)
    _refuse_foreign(records)
    for keyword in (b"path", b"linkpath", b"size"):
        if keyword in records:
            raise ValueError(
                f"a global extended header sets {show_name(keyword)} for all members, which no tile set can mean"
            )


def unknown_kind(kind: int) -> str:
    """Why a member of this type byte is refused."""
    if kind == ord("S"):
        return "it is a sparse file, whose bytes are not stored in one piece: make the archive without --sparse (-S)"
    if kind == ord("M"):
        return "it continues a member of another volume: join the volumes of a multi-volume archive first"
    return f"its member type {show_name(bytes([kind]))} is unknown"
