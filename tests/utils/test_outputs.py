"""What is told where something cannot be written, and that nothing of it stays."""

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from dinov2.errors import UserError
from dinov2.utils import outputs
from dinov2.utils.atomic import atomic_path, write_text
from dinov2.utils.outputs import OutputError, output_error, output_errors, try_file, try_folder


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may be larger than 100 kB, as after `ulimit -f`."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fault(number: int, *names: str) -> OSError:
    return OSError(number, os.strerror(number), *names)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota is used up"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, "input/output error"),
        (errno.ESTALE, "file server"),
    ],
)
def test_every_fault_has_its_remedy(number: int, reason: str, tmp_path: Path) -> None:
    message = str(output_error(tmp_path / "x.npy", fault(number)))
    assert message.startswith(f"cannot write {tmp_path / 'x.npy'}: ") and reason in message
    assert message.endswith(".") and "\n" not in message


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("library", ["torch", "safetensors", "numpy", "text"])
def test_libraries_that_hide_the_reason(library: str, tmp_path: Path) -> None:
    import numpy as np
    import torch
    from safetensors.torch import save_file

    values = torch.zeros(100_000)
    with pytest.raises(OutputError, match="no file may become that large"), atomic_path(tmp_path / "x.bin") as path:
        if library == "torch":
            torch.save(values, path)
        elif library == "safetensors":
            save_file({"x": values}, path)
        elif library == "numpy":
            with path.open("wb") as file:
                np.savez(file, values.numpy())
        else:
            path.write_text("x" * 400_000)
    assert list(tmp_path.iterdir()) == []


def test_others_are_not_blamed_on_the_place(tmp_path: Path) -> None:
    for other in (fault(errno.EIO), fault(errno.EACCES, "/data/source.tar"), ValueError("a bug"), UserError("mistake")):
        with pytest.raises(type(other)) as found, output_errors(tmp_path / "x"):
            raise other
        assert found.value is other


def test_errors_of_libraries_where_the_place_is_at_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(folder: Path) -> None:
        raise fault(errno.EROFS)

    monkeypatch.setattr(outputs, "_write_probe", read_only)
    with pytest.raises(OutputError, match="read-only"):
        try_folder(tmp_path / "new" / "folder")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OutputError, match="read-only"), output_errors(tmp_path / "x"):
        raise RuntimeError("[enforce fail at inline_container.cc]")
    monkeypatch.undo()
    with pytest.raises(OutputError, match="the disk is full"), output_errors(tmp_path / "x"):
        raise RuntimeError("I/O error: No space left on device (os error 28)")  # and the half file is gone again


def test_places_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try_folder(tmp_path / "new" / "folder")
    try_file(tmp_path / "other" / "file.txt")
    assert [path.name for path in tmp_path.rglob("*")] and not [path for path in tmp_path.rglob("*") if path.is_file()]
    with pytest.raises(OutputError, match="a folder is where a file is needed"):
        try_file(tmp_path / "new")
    write_text(tmp_path / "file", "")
    with pytest.raises(OutputError, match="a file is where a folder is needed"):
        try_file(tmp_path / "file" / "below")
    with pytest.raises(OutputError, match="too long"):
        try_folder(tmp_path / ("n" * 300))
    with pytest.raises(OutputError, match="too long"):
        try_file(tmp_path / ("n" * 300))
