"""Pickled side files of strangers: read what NumPy wrote, execute nothing, allocate nothing on a file's word."""

import io
import os
import pickle
import struct
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dinov2.data.tar_index import SideFileError, load_class_ids, load_entries, load_names

CANARY = "DINOV2_TEST_CANARY"
READERS: list[Callable[[Path], object]] = [load_names, load_class_ids, load_entries]


class Calls:
    """An object whose pickle calls a function with arguments, and perhaps sets a state."""

    def __init__(self, function: object, *args: object, state: object = None):
        self.function, self.args, self.state = function, args, state

    def __reduce__(self) -> tuple[object, ...]:
        return (self.function, self.args) if self.state is None else (self.function, self.args, self.state)


def npy(program: bytes, descr: str = "|O", shape: str = "()") -> bytes:
    """A `.npy` file around a pickle."""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + program


def saved(value: object, protocol: int = 3) -> bytes:
    """What np.save writes for an object array that holds `value`."""
    array = np.empty((), object)
    array[()] = value
    return npy(pickle.dumps(array, protocol=protocol))


TOUCH = f"import os; os.environ[{CANARY!r}] = 'executed'"
PAYLOADS: dict[str, Callable[[], bytes]] = {
    "os.system": lambda: saved(Calls(os.system, "true")),
    "posix.system by name": lambda: npy(b"cposix\nsystem\n(X\x04\x00\x00\x00truetR."),
    "os.putenv": lambda: saved(Calls(os.putenv, CANARY, "executed")),
    "eval": lambda: saved(Calls(eval, f"__import__('os').environ.update({CANARY}='executed')")),
    "exec": lambda: saved(Calls(exec, TOUCH)),
    "exec in the dictionary": lambda: saved({0: Calls(exec, TOUCH)}),
    "exec as a key": lambda: saved({Calls(exec, TOUCH): "a"}),
    "exec as the whole pickle": lambda: npy(pickle.dumps(Calls(exec, TOUCH))),
    "exec, protocol 0": lambda: npy(pickle.dumps(Calls(exec, TOUCH), protocol=0)),
    "exec, protocol 5": lambda: saved(Calls(exec, TOUCH), protocol=5),
    "__import__": lambda: saved(Calls(__import__, "antigravity")),
    "getattr chain": lambda: saved(Calls(getattr, Calls(__import__, "os"), "system")),
    "functools.partial": lambda: saved(Calls(partial, exec, TOUCH)),
    "subprocess.Popen": lambda: npy(b"csubprocess\nPopen\n(](X\x04\x00\x00\x00trueetR."),
    "instance opcode": lambda: npy(b"(X\x04\x00\x00\x00trueios\nsystem\n."),
    "object opcode": lambda: npy(b"(cos\nsystem\nX\x04\x00\x00\x00trueo."),
    "newobj opcode": lambda: npy(b"\x80\x02cbuiltins\nobject\n)\x81."),
    "stack global": lambda: npy(b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R."),
    "extension registry": lambda: npy(b"\x80\x02\x82\x01)R."),
    "persistent id": lambda: npy(b"X\x03\x00\x00\x00abcQ."),
    "dotted name": lambda: npy(b"\x80\x04\x8c\x05numpy\x8c\x15ndarray.__class__.mro\x93)R."),
    "numpy submodule": lambda: npy(b"cnumpy.testing._private.utils\nrunstring\n(X\x04\x00\x00\x00passtR."),
    "numpy.load": lambda: npy(b"cnumpy\nload\n(X\x01\x00\x00\x00atR."),
    "ndarray called": lambda: npy(b"cnumpy\nndarray\n(K\x01\x85tR."),
    "state of a name": lambda: npy(b"cnumpy\ndtype\n}X\x08\x00\x00\x00__call__K\x01sb."),
    "state of a class": lambda: npy(b"cnumpy.core.multiarray\n_reconstruct\n(NX\x01\x00\x00\x00ad}tb."),
    "nested pickle": lambda: saved(Calls(pickle.loads, pickle.dumps(Calls(exec, TOUCH)))),
    "OrderedDict": lambda: saved(OrderedDict(a=1)),
    "bytearray": lambda: saved(bytearray(b"x")),
    "object array inside": lambda: saved({0: np.array([Calls(exec, TOUCH)], object)}),
    "dtype with fields": lambda: npy(pickle.dumps(np.array([(1, "a")], dtype=[("a", "O"), ("b", "O")]))),
    "plain numbers pickled": lambda: npy(pickle.dumps(np.arange(3))),
    "wrong dictionary": lambda: saved({"a": 1}),
    "floats": lambda: saved({0: 1.5}),
    "a list": lambda: saved([1, 2]),
    "shape that lies": lambda: npy(saved({0: "a"})[128:].replace(b"(t", b"(K\x07t", 1), shape="(7,)"),
    "no stop": lambda: npy(pickle.dumps(np.array({0: "a"}, object))[:-1]),
    "nothing": lambda: npy(b""),
    "empty stack": lambda: npy(b"0000."),
    "tuple of nothing": lambda: npy(b"\x85."),
    "mark of nothing": lambda: npy(b"t."),
    "memo of nothing": lambda: npy(b"h\x07."),
    "list as a key": lambda: npy(b"}]K\x01s."),
    "append to a number": lambda: npy(b"K\x01K\x02a."),
    "code in the npy header": lambda: npy(b"", shape="__import__('os').system('true')"),
}


@pytest.mark.parametrize("case", sorted(PAYLOADS))
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_payloads_execute_nothing_and_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, reader: Callable[[Path], object]
) -> None:
    path = tmp_path / "file_indices.npy"
    path.write_bytes(PAYLOADS[case]())

    def executed(*args: object, **kwargs: object) -> Any:
        raise AssertionError("something was executed")

    with monkeypatch.context() as patched:
        for place in ("os.system", "os.putenv", "subprocess.Popen", "pickle.loads", "pickle.load", "numpy.load"):
            patched.setattr(place, executed)
        with pytest.raises(SideFileError):
            reader(path)
    assert CANARY not in os.environ


def test_there_are_enough_payloads() -> None:
    assert len(PAYLOADS) >= 25


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_numpy_writes_is_read_back(tmp_path: Path, protocol: int) -> None:
    names = {i: f"tile_{i}_é.jpg" for i in range(3000)} | {3000: "\udcff.jpg", 70_000: "x", 2**40: "n" * 70_000, -1: ""}
    if protocol == 2:  # writes bytes through a fourth name, _codecs.encode, as no np.save of Python 3 did
        (tmp_path / "a.npy").write_bytes(saved(names, protocol))
        with pytest.raises(SideFileError, match="_codecs.encode"):
            load_names(tmp_path / "a.npy")
        return
    (tmp_path / "a.npy").write_bytes(saved(names, protocol))
    assert load_names(tmp_path / "a.npy") == names


def test_what_np_save_writes_is_read_back(tmp_path: Path) -> None:
    names = {0: "A", 1: "B", 300: "A"}
    np.save(tmp_path / "a.npy", names)  # type: ignore[arg-type]
    assert load_names(tmp_path / "a.npy") == names
    rows = [[0, "class_0"], [-3, "x"], ["text", "é"], [2**70, ""]]
    for order in ("C", "F"):
        np.save(tmp_path / "c.npy", np.array(rows, object, order=order))  # type: ignore[call-overload]
        assert load_class_ids(tmp_path / "c.npy") == [tuple(row) for row in rows]
    np.save(tmp_path / "c.npy", np.empty((0, 2), object))
    assert load_class_ids(tmp_path / "c.npy") == []


def test_tables_are_not_taken_for_each_other(tmp_path: Path) -> None:
    np.save(tmp_path / "n.npy", {0: "a"})  # type: ignore[arg-type]
    np.save(tmp_path / "c.npy", np.array([[0, "a"]], object))
    with pytest.raises(SideFileError, match="expected rows"):
        load_class_ids(tmp_path / "n.npy")
    with pytest.raises(SideFileError, match="expected one dictionary"):
        load_names(tmp_path / "c.npy")
    with pytest.raises(SideFileError, match="cannot be read"):
        load_names(tmp_path / "none.npy")


BOMBS = {
    "memo index": b"K\x01r\xff\xff\xff\xff.",
    "text of 4 GiB": b"X\xff\xff\xff\xffabc.",
    "bytes of 4 GiB": b"B\xff\xff\xff\xffabc.",
    "frame of 2**60": b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"K\x01.",
    "list of itself": b"]q\x00h\x00a.",
    "nested tuples": b")" + b"\x85" * 100_000 + b".",
    "nested tuples as a key": b"}" + b")" + b"\x85" * 100_000 + b"K\x01s.",
    "doubling lists": b"]" + b"".join(b"q\x00(" + b"h\x00" * 2 + b"e" for _ in range(40)) + b".",
    "array of 2**50": b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n\x8a\x08"
    + struct.pack("<q", 2**50)
    + b"\x85C\x01b\x87R.",
}


@pytest.mark.parametrize("case", sorted(BOMBS))
def test_bombs_take_no_memory_and_no_time(tmp_path: Path, case: str) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(npy(BOMBS[case]))
    tracemalloc.start()
    try:
        with pytest.raises(SideFileError):
            load_names(path)
        assert tracemalloc.get_traced_memory()[1] < 120e6
    finally:
        tracemalloc.stop()


def test_random_programs_end_in_our_error(tmp_path: Path) -> None:
    """Legitimate files with bytes changed: read as something legitimate, or refused."""
    rng, path = np.random.default_rng(0), tmp_path / "a.npy"
    good = saved({i: f"n{i}" for i in range(20)})
    for _ in range(1500):
        data = bytearray(good)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            data[at] = rng.integers(0, 256)
        path.write_bytes(data)
        for reader in (load_names, load_class_ids):
            try:
                result = reader(path)
            except SideFileError:
                continue
            assert isinstance(result, dict) and all(isinstance(value, str) for value in result.values())


def test_numpy_itself_reads_what_is_written_here(tmp_path: Path) -> None:
    from dinov2.data.tar_index.numpy_files import NameDictWriter, write_object_array

    file = io.BytesIO()
    writer = NameDictWriter(file)
    for part in ([b"a", b"\xff"], [], [b"x" * 300] * 3):
        writer.append(part)
    writer.close()
    (tmp_path / "n.npy").write_bytes(file.getvalue())
    expected = {0: "a", 1: "\udcff", 2: "x" * 300, 3: "x" * 300, 4: "x" * 300}
    assert np.load(tmp_path / "n.npy", allow_pickle=True).item() == load_names(tmp_path / "n.npy") == expected
    file = io.BytesIO()
    write_object_array(file, [(3, "a"), ("b", "c")], shape=(2, 2))
    (tmp_path / "c.npy").write_bytes(file.getvalue())
    assert np.load(tmp_path / "c.npy", allow_pickle=True).tolist() == [[3, "a"], ["b", "c"]]
    assert load_class_ids(tmp_path / "c.npy") == [(3, "a"), ("b", "c")]
