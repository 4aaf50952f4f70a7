"""What a file is by its first bytes and its structure: weights, or what came in their place.

A log-in page, the pointer that git-lfs leaves where a file should be, and half a download all have the name of the
weights that were asked for.
"""

import json
import zipfile
from pathlib import Path
from typing import Literal

from dinov2.errors import UserError

Kind = Literal["torch", "safetensors"]

_LFS = b"version https://git-lfs"
_OTHERS = {b"\x1f\x8b": "gzip data", b"%PDF": "a PDF", b"\x89PNG": "an image", b"\xff\xd8\xff": "an image"}
_OTHERS |= {b"\x89HDF": "HDF5", b"7z\xbc\xaf": "a 7z archive", b"Rar!": "a RAR archive", b"BZh": "bzip2 data"}
_LONGEST_HEADER = 100_000_000  # bytes of a safetensors file's list of tensors, the format's own limit


def kind_of(path: Path) -> Kind:
    """Which reader a file of weights is for; bytes that nothing is known of are left to torch's.

    Raises:
        UserError: if it is something else, or only the beginning of weights; it says what.
    """
    try:
        with path.open("rb") as file:
            head, size = file.read(512), path.stat().st_size
    except OSError as error:
        raise UserError(f"weights file {path} cannot be read: {error.strerror}") from error
    length = int.from_bytes(head[:8], "little")
    kind: Kind = "safetensors" if head[8:9] == b"{" and 2 <= length <= _LONGEST_HEADER else "torch"
    if kind == "safetensors":
        fault = _fault_of_safetensors(path, size, length)
    else:
        fault = _fault_of_zip(path) if head.startswith(b"PK\x03\x04") else _other_than_torch(head)
    if fault:
        raise UserError(f"{path} is no file of weights: {fault} ({size:,} bytes)")
    return kind


def _fault_of_safetensors(path: Path, size: int, length: int) -> str:
    if size < 8 + length:
        return f"a safetensors file that ends within its header of {length:,} bytes"
    with path.open("rb") as file:
        file.seek(8)
        try:
            header = json.loads(file.read(length))
            end = (
                8
                + length
                + max((one["data_offsets"][1] for name, one in header.items() if name[:2] != "__"), default=0)
            )
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
            return f"a safetensors file whose header cannot be read: {error!r}"
    return "" if size == end else f"a safetensors file that is truncated or damaged: its header tells of {end:,} bytes"


def _fault_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:  # whatever damaged tables make the reader raise
        return f"a torch file or zip archive that is truncated or damaged: {error}"
    is_torch = any(name.rpartition("/")[2] == "data.pkl" for name in names)
    return "" if is_torch else f"a zip archive with {', '.join(names[:3]) or 'nothing'}, and not one of torch"


def _other_than_torch(head: bytes) -> str:
    """What a file is that begins with `head`; empty for bytes of no known meaning."""
    if not head:
        return "it is empty"
    if head.startswith(_LFS):
        return "a pointer of git-lfs, which stands for the file; fetch it with `git lfs pull`, or download it by itself"
    found = next((what for start, what in _OTHERS.items() if head.startswith(start)), "")
    if found or any(byte < 32 and byte not in b"\t\n\f\r\x1b" for byte in head):
        return found
    text = head.decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    if text.lower().startswith(("<!doctype html", "<html", "<head", "<body")):
        what = "a web page (HTML), often a log-in"
    else:
        what = {"<": "HTML or XML", "{": "JSON", "[": "JSON"}.get(text[:1], "text" if len(text.split()) > 1 else "")
    return what and f"{what}, which begins {' '.join(text.split())[:120]!r}"
