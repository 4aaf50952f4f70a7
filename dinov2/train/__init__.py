"""Training: the self-supervised step, its schedules, and the loop around them."""

from typing import Any

__all__ = ["SSLMetaArch", "do_train", "get_args_parser"]


def __getattr__(name: str) -> Any:
    """DINOv2's three public names, imported when asked for."""
    if name == "SSLMetaArch":
        from .ssl_meta_arch import SSLMetaArch

        return SSLMetaArch
    if name in ("do_train", "get_args_parser"):
        from . import train

        return getattr(train, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
