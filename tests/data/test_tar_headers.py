"""The header walk against a slow one: every archive is indexed completely or refused, whatever is in it."""

import bz2
import gzip
import io
import lzma
import os
import random
import subprocess
import tarfile
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tar_making import (
    BLOCK,
    END,
    DamagedError,
    Found,
    SlowWalk,
    base256,
    fast_walk,
    header,
    hundred,
    member,
    padded,
    pax,
    repaired,
)

from dinov2.data.tar_index import ArchiveError
from dinov2.data.tar_index import chain as chain_module
from dinov2.data.tar_index.members import Members

FUZZED = 20_000


def walk_bytes(folder: Path, data: bytes) -> Found:
    """The fast walk over an archive given as bytes."""
    path = folder / "t.tar"
    path.write_bytes(data)
    return fast_walk(path)


@pytest.fixture
def memory_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is one: twenty thousand archives need no disk."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


def from_tarfile(path: Path) -> Found:
    """What Python's tarfile finds in a good archive."""
    with tarfile.open(path) as tar:
        regular = [(m, m) for m in tar if m.isreg()]
        links = [(m, tar._find_link_target(m)) for m in tar if m.islnk()]
    return [(m.name.encode("utf-8", "surrogateescape"), t.offset_data, t.size) for m, t in regular + links]


# --- good archives -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tiles_gnu.tar", "tiles_pax.tar", "tiles_ustar.tar"])
def test_goldens_are_walked_like_tarfile_does(name: str) -> None:
    path = Path(__file__).parent / "goldens" / "entries" / name
    assert fast_walk(path) == from_tarfile(path) == SlowWalk(path.read_bytes()).run()


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=150
)
FORMATS = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.lists(NAMES, min_size=1, max_size=4), st.integers(0, 3000)), max_size=12),
    st.sampled_from(sorted(FORMATS)),
    st.integers(0, 3),
)
def test_any_archive_of_tarfile_is_walked_like_tarfile_does(
    tmp_path: Path, files: list[tuple[list[str], int]], form: str, kinds: int
) -> None:
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w", format=FORMATS[form]) as tar:
        for number, (parts, size) in enumerate(files):
            info = tarfile.TarInfo("/".join(parts))
            info.size, info.mtime = size, number + (0.5 if kinds & 1 else 0)
            tar.addfile(info, io.BytesIO(bytes(size)))
            if kinds & 2:
                link = tarfile.TarInfo(f"{number}/" + "/".join(parts))
                link.type, link.linkname = (tarfile.LNKTYPE, info.name) if number % 2 else (tarfile.SYMTYPE, "x")
                tar.addfile(link)
    assert fast_walk(path) == from_tarfile(path)


def test_kinds_that_are_no_tiles_are_counted(tmp_path: Path) -> None:
    kinds = {
        b"2": "symbolic links",
        b"3": "character devices",
        b"5": "folders",
        b"V": "volume labels",
    }
    path = tmp_path / "t.tar"
    path.write_bytes(b"".join(header(b"n", 0, kind) for kind in kinds) + member(b"d", b"list", kind=b"D") + END)
    members = Members(path)
    assert sum(len(chunk.paths) for chunk in members) == 0
    assert dict(members.skipped) == dict.fromkeys(kinds.values(), 1) | {"folder listings": 1}


X = [(b"a.jpg", 512, 1)]
NOTATIONS: dict[str, tuple[bytes, Found]] = {
    "v7": (member(b"a.jpg", magic=b""), X),
    "v7 folder": (member(b"a.jpg", kind=b"\0") + header(b"d/", kind=b"\0"), X),
    "contiguous": (member(b"a.jpg", kind=b"7"), X),
    "ustar prefix": (member(b"a.jpg", prefix=b"p/q"), [(b"p/q/a.jpg", 512, 1)]),
    "no prefix in GNU": (member(b"a.jpg", magic=b"ustar  \0", prefix=b"123"), X),
    "base-256": (header(b"a.jpg", base256(3)) + padded(b"abc"), [(b"a.jpg", 512, 3)]),
    "blank-padded": (header(b"a.jpg", b"         3 ") + padded(b"abc"), [(b"a.jpg", 512, 3)]),
    "12 digits": (header(b"a.jpg", b"000000000003") + padded(b"abc"), [(b"a.jpg", 512, 3)]),
    "junk after the name": (member(b"a.jpg\0junk"), X),
    "upwards": (member(b"../../a.jpg"), [(b"../../a.jpg", 512, 1)]),
    "absolute": (member(b"/etc/a.jpg"), [(b"/etc/a.jpg", 512, 1)]),
    "not UTF-8": (member(b"\xff\xfe.jpg"), [(b"\xff\xfe.jpg", 512, 1)]),
    "padded": (member(b"a.jpg") + bytes(20 * BLOCK), X),
    "padded by part of a block": (member(b"a.jpg") + bytes(77), X),
    "empty": (b"", []),
    "pax": (pax(path=b"p.jpg", size=b"3") + header(b"a", 0) + padded(b"abc"), [(b"p.jpg", 1536, 3)]),
    "empty pax value": (pax(path=b"") + member(b"a.jpg"), [(b"a.jpg", 1536, 1)]),
    "global pax": (member(b"x", b"11 c=hello\n", kind=b"g") + member(b"a.jpg"), [(b"a.jpg", 1536, 1)]),
    "long name and target": (
        member(b"L", b"n" * 300 + b"\0", kind=b"L") + member(b"K", b"t\0", kind=b"K") + member(b"a.jpg"),
        [(b"n" * 300, 2560, 1)],
    ),
    "link to the latest, link to a link": (
        b"".join(member(b"a", data) for data in (b"one", b"second"))
        + header(b"l", 0, b"1", target=b"a")
        + header(b"m", 0, b"1", target=b"l"),
        [(b"a", 512, 3), (b"a", 1536, 6), (b"l", 1536, 6), (b"m", 1536, 6)],
    ),
}


@pytest.mark.parametrize("case", sorted(NOTATIONS))
def test_notations(tmp_path: Path, case: str) -> None:
    tar, expected = NOTATIONS[case]
    assert walk_bytes(tmp_path, tar + END) == SlowWalk(tar + END).run() == expected


def test_signed_checksums_of_old_tars(tmp_path: Path) -> None:
    block = header("carré.jpg".encode("latin-1"), 1)
    rest = block[:148] + block[156:]
    signed = sum(c - 256 if c > 127 else c for c in rest) + 256
    tar = block[:148] + b"%06o\0 " % signed + block[156:] + padded(b"x") + END
    assert walk_bytes(tmp_path, tar) == SlowWalk(tar).run() == [(b"carr\xe9.jpg", 512, 1)]


def test_members_over_8_gib(tmp_path: Path) -> None:
    path, size = tmp_path / "big.tar", 9 << 30
    with path.open("wb") as file:  # a sparse file: it takes a few KB on disk
        file.write(header(b"big.tif", base256(size)))
        file.seek(size, 1)
        file.write(pax(size=b"%d" % size) + header(b"bigger.tif", 0))
        file.seek(size, 1)
        file.write(member(b"after.jpg") + END)
    starts = [512, 512 + size + 1536, 512 + size + 1536 + size + 512]
    assert fast_walk(path) == [
        (b"big.tif", starts[0], size),
        (b"bigger.tif", starts[1], size),
        (b"after.jpg", starts[2], 1),
    ]
    assert fast_walk(path) == from_tarfile(path)


@pytest.mark.parametrize("tile_bytes", [100, 5_000, 40_000])
def test_windows_batches_and_strides_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tile_bytes: int
) -> None:
    rng = np.random.default_rng(tile_bytes)
    tar = b"".join(
        (pax(path=b"long/%d.jpg" % i) if i % 7 == 0 else b"") + member(b"t/%d.jpg" % i, bytes(int(size)))
        for i, size in enumerate(rng.integers(0, 2 * tile_bytes, 300))
    )
    expected = SlowWalk(tar + END).run()
    for window, batch in ((1 << 20, 2048), (4 * BLOCK, 50), (BLOCK, 1), (1 << 14, 7)):
        monkeypatch.setattr(chain_module, "NEAR_WINDOW", window)
        monkeypatch.setattr(chain_module, "BATCH", batch)
        assert walk_bytes(tmp_path, tar + END) == expected


# --- bad archives ------------------------------------------------------------------------------------------------


def with_byte(tar: bytes, at: int, value: bytes) -> bytes:
    return tar[:at] + value + tar[at + len(value) :]


def with_header(tar: bytes, at: int, field: int, value: bytes) -> bytes:
    """A field of the header at `at` replaced, checksum repaired."""
    return tar[:at] + repaired(with_byte(tar[at : at + BLOCK], field, value)) + tar[at + BLOCK :]


TAR, AT = hundred()
DAMAGED: dict[str, tuple[bytes, str]] = {
    "damaged header": (with_byte(TAR, AT[50] + 3, b"\xee"), "checksum"),
    "zeroed header": (with_byte(TAR, AT[50], bytes(BLOCK)), "zero block"),
    "negative size": (with_header(TAR, AT[50], 124, b"\xff" * 12), "negative"),
    "cut between members": (TAR[: AT[51]], "two zero blocks"),
    "cut in a header": (TAR[: AT[51] + 100], "truncated"),
    "cut in the data": (TAR[: AT[51] + 700], "truncated"),
    "only one zero block": (TAR[:-BLOCK], "only one zero block"),
    "no end marker": (TAR[: -2 * BLOCK], "two zero blocks"),
    "size too big": (with_header(TAR, AT[50], 124, b"77777777777\0"), "past the end"),
    "size no number": (with_header(TAR, AT[50], 124, b"0000x000010\0"), "not a number"),
    "size of 2**90": (with_header(TAR, AT[50], 124, base256(2**87)), "beyond any disk"),
    "two archives": (TAR + TAR, "more data"),
    "unknown member type": (with_header(TAR, AT[50], 156, b"Q"), "unknown"),
    "sparse file, old GNU": (with_header(TAR, AT[50], 156, b"S"), "sparse"),
    "sparse file, pax": (pax(GNU__sparse__major=b"1") + TAR, "sparse"),
    "second volume": (with_header(TAR, AT[0], 156, b"M"), "volume"),
    "pax header of 8 GiB": (header(b"p", base256(8 << 30), b"x") + TAR, "extended header claims"),
    "long name of 8 GiB": (header(b"p", base256(8 << 30), b"L") + TAR, "extended header claims"),
    "pax record too long": (member(b"p", b"99 path=a\n", kind=b"x") + TAR, "damaged record"),
    "pax without length": (member(b"p", b"path=a\n", kind=b"x") + TAR, "record length"),
    "pax size no number": (pax(size=b"1e3") + TAR, "impossible size"),
    "pax name with NUL": (pax(path=b"a\0b") + TAR, "NUL"),
    "two pax headers": (pax(path=b"a") + pax(path=b"b") + TAR, "two extended headers"),
    "pax and long name": (member(b"L", b"a\0", kind=b"L") + pax(path=b"b") + TAR, "two extended headers"),
    "global size": (member(b"g", b"9 size=3\n", kind=b"g") + TAR, "global"),
    "extension at the end": (TAR[: -2 * BLOCK] + pax(path=b"a") + END, "followed by no member"),
    "link with data": (with_header(TAR, AT[50], 156, b"1"), "claims"),
    "link to nothing": (header(b"l", 0, b"1", target=b"nowhere") + TAR, "not in the archive before it"),
    "link to a later member": (header(b"l", 0, b"1", target=b"tiles/t000.jpg") + TAR, "not in the archive before it"),
    "gzip": (gzip.compress(TAR), "gunzip"),
    "bzip2": (bz2.compress(TAR), "bunzip2"),
    "xz": (lzma.compress(TAR), "unxz"),
    "zstandard": (b"\x28\xb5\x2f\xfd" + TAR, "zstd -d"),
    "not a tar": (b"hello, world\n" * 100, "checksum"),
    "nothing": (b"", "two zero blocks"),
}


@pytest.mark.parametrize("case", sorted(DAMAGED))
def test_damaged_archives_are_refused_with_place_and_reason(tmp_path: Path, case: str) -> None:
    tar, reason = DAMAGED[case]
    with pytest.raises(ArchiveError, match="block") as error:
        walk_bytes(tmp_path, tar)
    assert reason in str(error.value)
    assert "t.tar" in str(error.value)
    with pytest.raises(DamagedError):
        SlowWalk(tar).run()


def test_the_block_of_the_fault_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=rf"header at byte {AT[50]:,} \(block {AT[50] // BLOCK:,}\)"):
        walk_bytes(tmp_path, with_byte(TAR, AT[50] + 3, b"\xee"))


@pytest.mark.parametrize(
    "make", [lambda p: None, lambda p: p.mkdir(), lambda p: subprocess.run(["mkfifo", p], check=True)]
)
def test_what_is_no_file_is_refused(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "t.tar")
    with pytest.raises(ArchiveError):
        Members(tmp_path / "t.tar")


def test_names_in_messages_stay_on_one_line(tmp_path: Path) -> None:
    name = b"evil\n\x1b[2J\r" + b"x" * 100_000
    long = member(b"L", name + b"\0", kind=b"L") + header(b"l", 0, b"1", target=b"none\n") + END
    with pytest.raises(ArchiveError) as error:
        walk_bytes(tmp_path, long)
    text = str(error.value)
    assert "\n" not in text and "\x1b" not in text and "\\n" in text and len(text) < 1000


# --- mutations ---------------------------------------------------------------------------------------------------


def bases() -> list[bytes]:
    """Small good archives of every notation, to be damaged."""
    plain = member(b"a.jpg", b"x" * 600) + header(b"d/", 0, b"5") + member(b"b/c.png", b"y" * 20)
    link = header(b"l.jpg", 0, b"1", target=b"a.jpg") + header(b"s", 0, b"2", target=b"a.jpg")
    return [
        plain + link + END,
        pax(path=b"p" * 120, mtime=b"1.5") + plain + pax(mtime=b"2", size=b"5") + member(b"e.jpg", b"12345") + END,
        member(b"L", b"n" * 150 + b"\0", kind=b"L") + plain + member(b"K", b"a.jpg\0", kind=b"K") + link + END,
        header(b"z.tif", base256(700))
        + bytes(1024)
        + member(b"g", b"11 c=hello\n", kind=b"g")
        + plain
        + END
        + bytes(3072),
    ]


FIELDS = [(0, 100), (124, 12), (124, 12), (124, 12), (148, 8), (156, 1), (156, 1), (157, 100), (257, 8), (345, 155)]
VALUES = [
    b"\xff" * 12,
    b"\x80" + bytes(10) + b"\x01",
    b"77777777777\0",
    b"",
    b"00000001000\0",
    b"0\0junk",
    b" 12 \0",
    base256(2**70),
]


def mutate(tar: bytes, rng: random.Random) -> bytes:
    """One to three faults: in header fields (mostly with the checksum repaired), in bytes, in the order of blocks."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(max(1, len(tar) // BLOCK)) * BLOCK
        block, choice = tar[at : at + BLOCK], rng.random()
        if choice < 0.7:
            first, length = rng.choice(FIELDS)
            value = rng.choice(VALUES) if rng.random() < 0.4 else rng.randbytes(rng.randint(1, 3))
            value = value or bytes(length)
            shift = rng.randrange(length) if len(value) < 4 else 0
            block = (
                block[: first + shift] + value[: length - shift] + block[first + shift + len(value[: length - shift]) :]
            )
            tar = (
                tar[:at]
                + (repaired(block) if rng.random() < 0.75 and len(block) == BLOCK else block)
                + tar[at + BLOCK :]
            )
        elif choice < 0.8:
            position = rng.randrange(max(1, len(tar)))
            tar = tar[:position] + rng.randbytes(1) + tar[position + 1 :]
        elif choice < 0.85:
            tar = tar[: rng.randrange(len(tar) + 1)]
        elif choice < 0.9:
            tar = tar[:at] + tar[at + BLOCK :]
        elif choice < 0.95:
            tar = tar[:at] + block + tar[at:]
        else:
            tar = tar[:at] + bytes(BLOCK) + tar[at + BLOCK :]
    return tar


@pytest.mark.thorough  # 10 s
def test_mutated_headers_are_walked_like_the_slow_walker_does_or_refused_like_it_does(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, good, refused, slowest = random.Random(3), 0, 0, 0.0
    starting_points = bases()
    for number in range(FUZZED):
        tar = mutate(rng.choice(starting_points), rng)
        monkeypatch.setattr(chain_module, "BATCH", 1 + number % 3 * 1000)  # one header at a time, or all in a batch
        monkeypatch.setattr(chain_module, "FAR_STRIDE", number % 2 * 10_000)  # headers read singly, or through windows
        try:
            expected: Found | None = SlowWalk(tar).run()
        except DamagedError:
            expected = None
        began = time.perf_counter()
        try:
            found: Found | None = walk_bytes(memory_path, tar)
        except ArchiveError:
            found = None
        slowest = max(slowest, time.perf_counter() - began)
        assert found == expected, f"mutation {number}"
        good, refused = good + (found is not None), refused + (found is None)
    assert good > FUZZED // 50 and refused > FUZZED // 4, (good, refused)
    assert slowest < 1


def test_long_names_do_not_pile_up_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    path.write_bytes((pax(path=b"n" * 200_000) + member(b"x")) * 400 + END)
    tracemalloc.start()
    try:
        assert sum(len(chunk.paths) for chunk in Members(path)) == 400
        assert tracemalloc.get_traced_memory()[1] < 40e6
    finally:
        tracemalloc.stop()


def test_no_memory_is_allocated_on_an_archives_word(tmp_path: Path) -> None:
    rng, starting_points = random.Random(4), bases()
    tracemalloc.start()
    try:
        for _ in range(300):
            try:
                walk_bytes(tmp_path, mutate(rng.choice(starting_points), rng))
            except ArchiveError:
                continue
        for size in (base256(1 << 40), b"77777777777\0", base256((1 << 20) - 1)):
            for kind in (b"x", b"g", b"L", b"K", b"0"):
                with pytest.raises(ArchiveError):
                    walk_bytes(tmp_path, header(b"bomb", size, kind) + TAR)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
