"""Published weights: what is known, where it comes from and under which licence, and models that carry it.

    python -m dinov2.hub list | show NAME | download NAME | inspect FILE

`resolve_weights` turns what a person names (a file, an address, a name of the list) into a file, for training and
evaluation alike. The entry points of DINOv2 are in `backbones` and `classifiers`, the models of Lunit in `lunit`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .registry import PublishedWeights, check_known, find, published

if TYPE_CHECKING:
    from .resolve import check_weights, resolve_weights, weights_digest

__all__ = ["PublishedWeights", "check_known", "check_weights", "find", "published", "resolve_weights", "weights_digest"]


def __getattr__(name: str) -> Any:
    """Import what downloads and reads files when it is asked for: names alone need nothing slow."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".resolve", __name__), name)
