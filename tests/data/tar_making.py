"""Tars made byte by byte for tests, and a slow walker that reads every block, to compare the fast one with."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dinov2.data.tar_index.links import HardLinks
from dinov2.data.tar_index.members import Members

BLOCK = 512
END = bytes(2 * BLOCK)
Found = list[tuple[bytes, int, int]]


def header(
    name: bytes,
    size: int | bytes = 0,
    kind: bytes = b"0",
    *,
    target: bytes = b"",
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
) -> bytes:
    """One header block with a right checksum; `size` in bytes stands in the field as it is."""
    field = size if isinstance(size, bytes) else b"%011o\0" % size
    fixed = name.ljust(100, b"\0") + b"0000644\0" + 2 * b"0000000\0" + field.ljust(12, b"\0") + b"00000000000\0"
    rest = kind + target.ljust(100, b"\0") + magic.ljust(8, b"\0") + bytes(80) + prefix.ljust(155, b"\0")
    return repaired((fixed + b" " * 8 + rest).ljust(BLOCK, b"\0"))


def repaired(block: bytes) -> bytes:
    """The header with its checksum made right."""
    blank = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(blank) + block[156:]


def padded(data: bytes) -> bytes:
    """Data filled up to whole blocks."""
    return data + bytes(-len(data) % BLOCK)


def member(name: bytes, data: bytes = b"x", **fields: bytes) -> bytes:
    """A header and its data."""
    return header(name, len(data), **fields) + padded(data)


def pax(**records: bytes) -> bytes:
    """A pax extended header with these records; in keywords, two underscores stand for a dot."""
    lines = b""
    for key, value in records.items():
        body = b" " + key.replace("__", ".").encode() + b"=" + value + b"\n"
        length = len(body) + 1
        while len(b"%d" % length) + len(body) != length:
            length += 1
        lines += b"%d" % length + body
    return header(b"PaxHeader", len(lines), b"x") + padded(lines)


def base256(number: int) -> bytes:
    """A 12-byte size field in base-256."""
    return b"\x80" + number.to_bytes(11, "big")


def hundred() -> tuple[bytes, list[int]]:
    """A tar of 100 tiles and the offset of each header."""
    tar, offsets = b"", []
    for i in range(100):
        offsets.append(len(tar))
        tar += member(b"tiles/t%03d.jpg" % i, bytes([i + 1]) * (200 + 31 * i))
    return tar + END, offsets


def fast_walk(path: Path) -> Found:
    """(path, start, size) of regular members, then of hard links, as the index numbers them."""
    members, links, found = Members(path), HardLinks(), []
    for chunk in members:
        regular = links.take_out(chunk)
        found += zip(regular.paths, regular.starts.tolist(), regular.sizes.tolist(), strict=True)
    if links:
        for chunk in links.resolve(members):
            found += zip(chunk.paths, chunk.starts.tolist(), chunk.sizes.tolist(), strict=True)
    return found


class DamagedError(Exception):
    """The slow walker refuses the archive."""


@dataclass
class _Header:
    block: bytes
    at: int

    def text(self, first: int, length: int) -> bytes:
        return self.block[first : first + length].split(b"\0")[0]

    def number(self, first: int, length: int, *, empty: bool) -> int:
        field = self.block[first : first + length]
        if empty and field[0] in (0x80, 0xFF):
            if field[0] == 0xFF:
                raise DamagedError("negative")
            return int.from_bytes(field[1:], "big")
        digits = field.lstrip(b" ").rstrip(b"\0 ")
        if not digits and not empty:
            raise DamagedError("no number")
        if any(c not in b"01234567" for c in digits):
            raise DamagedError("not octal")
        return int(digits or b"0", 8)

    def check(self) -> None:
        rest = self.block[:148] + self.block[156:]
        signed = sum(c - 256 if c > 127 else c for c in rest)
        if self.number(148, 8, empty=False) not in (sum(rest) + 256, signed + 256):
            raise DamagedError("checksum")


class SlowWalk:
    """Goes through a tar block by block; knows the format from its description, shares no code with the package."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0
        self.regular: Found = []
        self.links: Found = []
        self.on_disk: dict[bytes, tuple[int, int]] = {}
        self.said: dict[str, bytes] = {}
        self.seen = ""

    def run(self) -> Found:
        while (block := self.take(1)) != bytes(BLOCK):
            self.one(_Header(block, self.at - BLOCK))
        if self.seen:
            raise DamagedError("extension without member")
        if len(self.data) - self.at < BLOCK or self.data[self.at :].strip(b"\0"):
            raise DamagedError("end marker")
        return self.regular + self.links

    def take(self, blocks: int) -> bytes:
        taken = self.data[self.at : self.at + blocks * BLOCK]
        if len(taken) < blocks * BLOCK:
            raise DamagedError("truncated")
        self.at += blocks * BLOCK
        return taken

    def one(self, head: _Header) -> None:
        head.check()
        kind, size = head.block[156:157], head.number(124, 12, empty=True)
        if size > 2**62:
            raise DamagedError("size")
        if kind in (b"L", b"K", b"x", b"X", b"g"):
            if size > 1 << 20:
                raise DamagedError("huge extension")
            self.extension(kind, self.take(-(-size // BLOCK))[:size])
            return
        said, self.said, self.seen = self.said, {}, ""
        size = int(said.get("size", b"%d" % size))
        if size > 2**62 or (size and kind in (b"1", b"2", b"3", b"4", b"5", b"6", b"V")):
            raise DamagedError("size")
        if kind not in (b"\0", b"0", b"7", b"1", b"2", b"3", b"4", b"5", b"6", b"V", b"D"):
            raise DamagedError("kind")
        start = self.at
        self.take(-(-size // BLOCK))
        name = said.get("path", self.name(head))
        if kind == b"\0" and name.endswith(b"/"):
            return
        if kind in (b"\0", b"0", b"7"):
            self.found(self.regular, name, start, size)
        elif kind == b"1":
            target = said.get("linkpath", head.text(157, 100))
            if target not in self.on_disk:
                raise DamagedError("link without target")
            self.found(self.links, name, *self.on_disk[target])

    def found(self, where: Found, name: bytes, start: int, size: int) -> None:
        where.append((name.rstrip(b"/"), start, size))
        self.on_disk[name.rstrip(b"/")] = (start, size)

    def name(self, head: _Header) -> bytes:
        prefix = head.text(345, 155) if head.block[257:263] == b"ustar\0" else b""
        return prefix + b"/" + head.text(0, 100) if prefix else head.text(0, 100)

    def extension(self, kind: bytes, payload: bytes) -> None:
        if kind == b"g":
            if set(self.records(payload)) & {"path", "linkpath", "size"}:
                raise DamagedError("global")
            return
        letter = kind.decode() if kind in (b"L", b"K") else "x"
        if letter in self.seen or (self.seen and "x" in self.seen + letter):
            raise DamagedError("two extensions")
        self.seen += letter
        if letter == "x":
            self.said |= {k: v for k, v in self.records(payload).items() if v and k in ("path", "linkpath", "size")}
            if not self.said.get("size", b"0").isdigit() or any(b"\0" in v for v in self.said.values()):
                raise DamagedError("pax value")
        else:
            self.said["path" if letter == "L" else "linkpath"] = payload.split(b"\0")[0]

    def records(self, payload: bytes) -> dict[str, bytes]:
        records: dict[str, bytes] = {}
        while payload:
            digits, space, _ = payload[:9].partition(b" ")
            if not space or not digits.isdigit() or len(digits) > 7 or not 0 < int(digits) <= len(payload):
                raise DamagedError("pax length")
            line, payload = payload[: int(digits)], payload[int(digits) :]
            key, equals, value = line[len(digits) + 1 : -1].partition(b"=")
            if line[-1:] != b"\n" or not equals or not key:
                raise DamagedError("pax record")
            if key.startswith((b"GNU.sparse.", b"GNU.volume.size")) or key == b"SCHILY.realsize":
                raise DamagedError("sparse")
            records[key.decode("latin-1")] = value
        return records


def noise(seed: int, count: int) -> bytes:
    """Bytes that compress and repeat nowhere."""
    return np.random.default_rng(seed).bytes(count)
