"""Training: the self-supervised step, its schedules, and the loop around them."""

from importlib import import_module
from typing import Any

_HOMES = {"SSLMetaArch": "ssl_meta_arch", "do_train": "train", "get_args_parser": "arguments"}

__all__ = ["SSLMetaArch", "do_train", "get_args_parser"]


def __getattr__(name: str) -> Any:
    """DINOv2's three public names, imported when asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
