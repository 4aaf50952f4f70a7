"""What is no tar, or is one in pieces, is told as what it is, with what to type."""

from pathlib import Path

import pytest
from tar_making import END, fast_walk, header, member, pax, repaired

from dinov2.data.tar_index import ArchiveError
from dinov2.data.tar_index.members import Members

OTHERS = {
    "lzip": (b"LZIP\x01", "compressed with lzip .*lzip -d"),
    "compress": (b"\x1f\x9d\x90", r"compressed with compress \(.Z\) .*uncompress"),
    "lzop": (b"\x89LZO\x00\r\n\x1a\n", "compressed with lzop .*lzop -d"),
    "lzma": (b"\x5d\x00\x00\x80\x00\xff", "compressed with lzma .*unlzma"),
    "zstandard": (b"\x28\xb5\x2f\xfd", "compressed with zstandard"),
    "7z": (b"7z\xbc\xaf\x27\x1c\x00", "a 7-Zip archive, not a tar.*7z x.*prepare_dataset"),
    "zip": (b"PK\x03\x04\x14", "a zip archive, not a tar.*unzip.*prepare_dataset"),
    "RAR": (b"Rar!\x1a\x07\x01", "a RAR archive"),
    "cpio": (b"070701000", "a cpio archive.*cpio -idm"),
    "slide": (b"II*\x00\x08", "a TIFF file or slide, not a tar"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "web page": (b"<!DOCTYPE html><html>", "a web page, not a tar.*login"),
}


def walk(folder: Path, tar: bytes) -> list[tuple[bytes, int, int]]:
    """Path, start and size of every file of a tar of these bytes."""
    (folder / "t.tar").write_bytes(tar)
    return fast_walk(folder / "t.tar")


@pytest.mark.parametrize("case", OTHERS)
def test_other_files_are_told_by_their_first_bytes(tmp_path: Path, case: str) -> None:
    begin, message = OTHERS[case]
    path = tmp_path / "t.tar"
    path.write_bytes(begin + bytes(2000))
    with pytest.raises(ArchiveError, match=message):
        Members(path)
    path.write_bytes(member(begin.replace(b"\0", b"") + b".jpg") + END)  # a tar whose first name begins so
    assert len(fast_walk(path)) == 1


def test_extensions_that_do_not_matter(tmp_path: Path) -> None:
    """tarlz puts a CRC into every header, GNU tar the label of an archive into a global one."""
    label = pax(GNU__volume__label=b"tiles")
    label = repaired(label[:156] + b"g" + label[157:512]) + label[512:]
    tar = label + pax(GNU__crc32=b"1234abcd") + member(b"a.jpg") + pax(path=b"b.jpg", SCHILY__dev=b"1") + member(b"x")
    assert [name for name, _, _ in walk(tmp_path, tar + END)] == [b"a.jpg", b"b.jpg"]


@pytest.mark.parametrize(
    ("tar", "message"),
    [
        (pax(GNU__sparse__major=b"1", GNU__sparse__minor=b"0"), "bsdtar --no-read-sparse.*without -S.*prepare_dataset"),
        (pax(SCHILY__realsize=b"70000"), "bsdtar --no-read-sparse"),
        (header(b"a.tif", 512, b"S"), "bsdtar --no-read-sparse"),
        (header(b"a.tif", 512, b"M"), "several volumes .*tar -xMf"),
        (pax(GNU__volume__offset=b"512"), "several volumes .*tar -xMf"),
        (member(b"a.jpg", bytes(9000))[:5000], "truncated.*compare the sizes.*tar -M"),
    ],
)
def test_members_in_pieces_are_refused_with_what_to_type(tmp_path: Path, tar: bytes, message: str) -> None:
    with pytest.raises(ArchiveError, match=message) as error:
        walk(tmp_path, tar + (b"" if b"a.jpg" in tar else member(b"a.tif") + END))
    assert str(error.value).count("Make the archive again") == 0  # the same command would do the same
