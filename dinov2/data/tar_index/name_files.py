"""Reads pickled side files (`file_indices.npy`, `class-ids.npy`, `cohort_indices.npy`) without running anything.

A pickle is a program for a stack machine that may call any Python function. This is such a machine with the
calls taken out: it knows the opcodes that numbers, texts, lists and dictionaries are written with, and three
names, those with which NumPy spells an object array. "Calling" them only notes what was said. Every length is
checked against the bytes that are there, so a small file cannot ask for much memory.
"""

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinov2.data.tar_index.errors import SideFileError, show_name
from dinov2.data.tar_index.numpy_files import read_header

LARGEST_FILE = 16 << 30
ARRAY, DTYPE, RECONSTRUCT = "numpy.ndarray", "numpy.dtype", "numpy._core.multiarray._reconstruct"
KNOWN_NAMES = {
    ("numpy", "ndarray"): ARRAY,
    ("numpy", "dtype"): DTYPE,
    ("numpy._core.multiarray", "_reconstruct"): RECONSTRUCT,
    ("numpy.core.multiarray", "_reconstruct"): RECONSTRUCT,
}


@dataclass(frozen=True)
class _Name:
    """One of the three known names."""

    name: str


@dataclass
class _Made:
    """What a known name was called with, and the state it was given."""

    name: str
    args: tuple[Any, ...]
    state: Any = None


class _RefusedError(Exception):
    """The pickle does something that no side file does."""


def load_names(path: str | Path) -> dict[int, str]:
    """The {number: name} of `file_indices.npy` or `cohort_indices.npy`, in its pickled form.

    Raises:
        SideFileError: the file is damaged or holds anything else.
    """
    shape, values = _read_objects(Path(path))
    names = values[0] if shape == () and len(values) == 1 else None
    if not isinstance(names, dict) or not all(type(key) is int and type(name) is str for key, name in names.items()):
        raise _bad_file(path, "expected one dictionary from numbers to names")
    return names


def load_class_ids(path: str | Path) -> list[tuple[int | str, str]]:
    """The (label, class name) pairs of `class-ids.npy`, in its pickled form.

    Raises:
        SideFileError: the file is damaged or holds anything else.
    """
    shape, values = _read_objects(Path(path))
    if len(shape) != 2 or shape[1] != 2 or not all(type(value) in (int, str) for value in values):
        raise _bad_file(path, f"expected rows of a label and a class name, got shape {shape}")
    return [(values[i], str(values[i + 1])) for i in range(0, len(values), 2)]


def _read_objects(path: Path) -> tuple[tuple[int, ...], list[Any]]:
    """Shape and elements, in C order, of a pickled object array."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise _RefusedError(f"{path.stat().st_size:,} bytes are more than {LARGEST_FILE:,}")
        with path.open("rb") as file:
            header = read_header(file)
            if header.descr != "|O":
                raise _RefusedError(f"expected objects, got elements of type {header.descr}")
            result = _Machine(file.read()).run()
        return _array_content(result, header.shape)
    except (OSError, ValueError, _RefusedError) as error:
        raise _bad_file(path, str(error)) from error


def _array_content(result: Any, promised: tuple[int, ...]) -> tuple[tuple[int, ...], list[Any]]:
    """Shape and elements of the array that was "made", if it is one of objects and of the promised shape."""
    state = result.state if isinstance(result, _Made) and result.name == RECONSTRUCT else None
    if not isinstance(state, tuple) or len(state) != 5:
        raise _RefusedError("the pickle is not a NumPy array")
    _, shape, dtype, _, values = state  # NumPy lists objects in C order whatever the array's order is
    if not isinstance(dtype, _Made) or dtype.name != DTYPE or dtype.args[:1] != ("O8",):
        raise _RefusedError("the pickle is not an array of objects")
    if shape != promised or len(shape) > 2 or not isinstance(values, list) or math.prod(shape) != len(values):
        raise _RefusedError(f"the array is not of the shape {promised} that its header has")
    return shape, values


def _bad_file(path: str | Path, reason: str) -> SideFileError:
    return SideFileError(
        f"{show_name(path)} cannot be read: {reason}. Nothing in it was executed. "
        "Make it again with scripts/infer_entries.py."
    )


class _Machine:
    """The stack machine; `run` gives the object on top when the program stops."""

    def __init__(self, program: bytes):
        self._program, self._at = program, 0
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Execute up to STOP.

        Raises:
            _RefusedError: with the reason.
        """
        steps = _STEPS
        while (code := self._take(1)[0]) != ord("."):
            step = steps.get(code)
            if step is None:
                raise _RefusedError(
                    f"byte {self._at - 1:,} of the pickle is opcode 0x{code:02x}, which no side file needs"
                )
            step(self)
        if len(self._stack) != 1:
            raise _RefusedError("the pickle does not end with one object")
        return self._stack[0]

    def _take(self, count: int) -> bytes:
        taken = self._program[self._at : self._at + count]
        if len(taken) < count:
            raise _RefusedError("the pickle ends too early")
        self._at += count
        return taken

    def _number(self, layout: str, count: int) -> int:
        return int(struct.unpack(layout, self._take(count))[0])

    def _pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise _RefusedError("the pickle takes from an empty stack")
        return self._stack.pop()

    def _pop_mark(self) -> list[Any]:
        if not self._marks:
            raise _RefusedError("the pickle has no mark to go back to")
        mark = self._marks.pop()
        values = self._stack[mark:]
        del self._stack[mark:]
        return values

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self._stack.append(value)

    def mark(self) -> None:
        """MARK: remember the height of the stack."""
        self._marks.append(len(self._stack))

    def skip(self, count: int) -> None:
        """Opcodes that only tell how the rest is laid out."""
        self._take(count)

    def number(self, layout: str, count: int) -> None:
        """A number of fixed width."""
        self.push(self._number(layout, count))

    def long(self) -> None:
        """A number of up to 255 bytes."""
        self.push(int.from_bytes(self._take(self._number("<B", 1)), "little", signed=True))

    def text(self, layout: str, count: int) -> None:
        """UTF-8 with surrogates for bytes that were none."""
        self.push(self._take(self._number(layout, count)).decode("utf-8", "surrogatepass"))

    def raw(self, layout: str, count: int) -> None:
        """Bytes."""
        self.push(self._take(self._number(layout, count)))

    def tuple_of(self, count: int) -> None:
        """A tuple of the last `count` values."""
        values = [self._pop() for _ in range(count)]
        self.push(tuple(reversed(values)))

    def tuple_to_mark(self) -> None:
        """A tuple of all values after the mark."""
        self.push(tuple(self._pop_mark()))

    def extend_list(self, values: list[Any]) -> None:
        """APPEND and APPENDS."""
        target = self._stack[-1] if self._stack else None
        if type(target) is not list:
            raise _RefusedError("the pickle appends to something that is no list")
        target.extend(values)

    def extend_dict(self, values: list[Any]) -> None:
        """SETITEM and SETITEMS; keys can only be numbers and texts."""
        target, keys = self._stack[-1] if self._stack else None, values[0::2]
        if type(target) is not dict or len(values) % 2 or not all(type(key) in (int, str) for key in keys):
            raise _RefusedError("the pickle fills something that is no dictionary of numbers or texts")
        target.update(zip(keys, values[1::2], strict=True))

    def put(self, key: int) -> None:
        """Remember the top of the stack under a number."""
        if not self._stack:
            raise _RefusedError("the pickle takes from an empty stack")
        self._memo[key] = self._stack[-1]

    def get(self, key: int) -> None:
        """Put a remembered value on the stack."""
        if key not in self._memo:
            raise _RefusedError(f"the pickle refers to object {key:,}, which it never made")
        self.push(self._memo[key])

    def name(self, module: Any, name: Any) -> None:
        """One of the three known names, and no other."""
        known = KNOWN_NAMES.get((module, name)) if type(module) is str and type(name) is str else None
        if known is None:
            raise _RefusedError(
                f"the pickle asks for {show_name(f'{module}.{name}')}, expected only what NumPy needs for names"
            )
        self.push(_Name(known))

    def name_in_line(self) -> None:
        """GLOBAL: module and name on two lines."""
        lines = []
        for _ in range(2):
            end = self._program.find(b"\n", self._at, self._at + 100)
            if end < 0:
                raise _RefusedError("the pickle asks for a name that does not end")
            lines.append(self._take(end - self._at).decode("utf-8", "replace"))
            self._take(1)
        self.name(*lines)

    def note_call(self) -> None:
        """REDUCE: note the arguments of a known name; nothing is called."""
        args, target = self._pop(), self._pop()
        if not isinstance(target, _Name) or target.name == ARRAY or not isinstance(args, tuple):
            raise _RefusedError("the pickle calls something that cannot be called")
        self.push(_Made(target.name, args))

    def note_state(self) -> None:
        """BUILD: note the state of what was "made" before."""
        state = self._pop()
        if not self._stack or not isinstance(self._stack[-1], _Made):
            raise _RefusedError("the pickle sets the state of something that has none")
        self._stack[-1].state = state


_STEPS: dict[int, Callable[[_Machine], None]] = {
    0x80: lambda m: m.skip(1),
    0x95: lambda m: m.skip(8),
    ord("("): _Machine.mark,
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("J"): lambda m: m.number("<i", 4),
    ord("K"): lambda m: m.number("<B", 1),
    ord("M"): lambda m: m.number("<H", 2),
    0x8A: _Machine.long,
    ord("X"): lambda m: m.text("<I", 4),
    0x8C: lambda m: m.text("<B", 1),
    ord("B"): lambda m: m.raw("<I", 4),
    ord("C"): lambda m: m.raw("<B", 1),
    ord(")"): lambda m: m.push(()),
    0x85: lambda m: m.tuple_of(1),
    0x86: lambda m: m.tuple_of(2),
    0x87: lambda m: m.tuple_of(3),
    ord("t"): _Machine.tuple_to_mark,
    ord("]"): lambda m: m.push([]),
    ord("}"): lambda m: m.push({}),
    ord("a"): lambda m: m.extend_list([m._pop()]),
    ord("e"): lambda m: m.extend_list(m._pop_mark()),
    ord("s"): lambda m: m.extend_dict([m._pop(), m._pop()][::-1]),
    ord("u"): lambda m: m.extend_dict(m._pop_mark()),
    ord("q"): lambda m: m.put(m._number("<B", 1)),
    ord("r"): lambda m: m.put(m._number("<I", 4)),
    0x94: lambda m: m.put(len(m._memo)),
    ord("h"): lambda m: m.get(m._number("<B", 1)),
    ord("j"): lambda m: m.get(m._number("<I", 4)),
    ord("c"): _Machine.name_in_line,
    0x93: lambda m: m.name(*[m._pop(), m._pop()][::-1]),
    ord("R"): _Machine.note_call,
    ord("b"): _Machine.note_state,
}
