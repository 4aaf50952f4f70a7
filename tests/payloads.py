"""Files that would run code if anything unpickled them, and a guard that notices."""

import codecs
import copyreg
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

CANARY = "DINOV2_TEST_CANARY"
TOUCH = f"import os; os.environ[{CANARY!r}] = 'executed'"
TOUCH_EXPRESSION = f"__import__('os').environ.update({CANARY}='executed')"


class Calls:
    """An object whose pickle calls a function with arguments, and perhaps sets a state."""

    def __init__(self, function: object, *args: object, state: object = None):
        self.function, self.args, self.state = function, args, state

    def __reduce__(self) -> tuple[object, ...]:
        return (self.function, self.args) if self.state is None else (self.function, self.args, self.state)


RUN = Calls(exec, TOUCH)


def torch_file(value: object, **options: Any) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def npy_file(value: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([value], object), allow_pickle=True)
    return buffer.getvalue()


def zip_file(program: bytes) -> bytes:
    """The archive that torch.load reads, with a pickle of another kind in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def safetensors_file(header: dict[str, Any], data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


HEX = codecs.encode(pickle.dumps(RUN), "hex").decode()
PAYLOADS: dict[str, Callable[[], bytes]] = {
    **{f"exec, protocol {number}": partial(pickle.dumps, RUN, number) for number in range(6)},
    "eval": lambda: pickle.dumps(Calls(eval, TOUCH_EXPRESSION)),
    "os.system": lambda: pickle.dumps(Calls(os.system, f"touch {CANARY}")),
    "os.putenv": lambda: pickle.dumps(Calls(os.putenv, CANARY, "executed")),
    "os.system by name": lambda: b"cposix\nsystem\n(X\x04\x00\x00\x00truetR.",
    "subprocess by name": lambda: b"csubprocess\nPopen\n(](X\x04\x00\x00\x00trueetR.",
    "getattr chain": lambda: pickle.dumps(Calls(getattr, Calls(__import__, "os"), "system")),
    "functools.partial": lambda: pickle.dumps(Calls(partial, exec, TOUCH)),
    "nested pickle": lambda: pickle.dumps(Calls(pickle.loads, pickle.dumps(RUN))),
    "state of an object": lambda: pickle.dumps(Calls(dict, state={"a": RUN})),
    "copyreg": lambda: pickle.dumps(Calls(copyreg._reconstructor, Calls, object, RUN)),
    "in a dictionary": lambda: pickle.dumps({"model": {"weight": RUN}}),
    "as a key": lambda: pickle.dumps({RUN: 1}),
    "torch.save": lambda: torch_file({"model": RUN}),
    "torch.save, old format": lambda: torch_file({"model": RUN}, _use_new_zipfile_serialization=False),
    "torch.save, pickle only": lambda: zip_file(pickle.dumps(RUN, 2)),
    "nested torch storage": lambda: pickle.dumps(Calls(torch.storage._load_from_bytes, torch_file(RUN))),
    "numpy object array": lambda: npy_file(RUN),
    "numpy.load": lambda: b"cnumpy\nload\n(X\x01\x00\x00\x00atR.",
    "instance opcode": lambda: b"(X\x04\x00\x00\x00trueios\nsystem\n.",
    "stack global": lambda: b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
    "index of torch.distributed.checkpoint": lambda: pickle.dumps(Calls(exec, TOUCH), 4),
    "pickle as text in JSON": lambda: json.dumps({"manifest": HEX, "__reduce__": ["os.system", "true"]}).encode(),
    "YAML tag": lambda: b"!!python/object/apply:os.system ['true']",
    "code as text": lambda: TOUCH.encode(),
    "header that is too long": lambda: (2**62).to_bytes(8, "little") + b"{}",
    "header without places": lambda: safetensors_file({"__metadata__": {"a": "b"}}),
    "places that are a pickle": lambda: safetensors_file({"__metadata__": {"pieces": HEX}}),
    "places of other tensors": lambda: safetensors_file({"__metadata__": {"pieces": '{"a": {"shape": [1]}}'}}),
    "deep nesting": lambda: b"[" * 200_000,
    "nothing": lambda: b"",
}


class Executed(BaseException):
    """Something was executed; no `except Exception` hides it."""


def executed(*args: object, **kwargs: object) -> Any:
    raise Executed


@contextmanager
def guarded(*, torch_load: bool = False) -> Iterator[None]:
    """What a payload could call, and every unpickler, fails the block.

    Args:
        torch_load: let torch.load work, which has an unpickler of its own.
    """
    places = ["os.system", "os.putenv", "subprocess.Popen", "numpy.load", *([] if torch_load else ["torch.load"])]
    places += [f"{module}.{name}" for module in ("pickle", "_pickle") for name in ("load", "loads", "Unpickler")]
    with pytest.MonkeyPatch.context() as patch:
        for place in places:
            patch.setattr(place, executed)
        yield
