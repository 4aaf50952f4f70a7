"""Where downloaded weights are kept, and whether the network may be used."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$DINOV2_HOME/weights`; without that variable, `dinov2/weights` in the user's folder for caches."""
    if home := os.environ.get("DINOV2_HOME"):
        return Path(home).expanduser() / "weights"
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "dinov2" / "weights"


def is_offline() -> bool:
    """Whether the variable DINOV2_OFFLINE forbids downloads: it is set, and to none of 0, false and no."""
    return os.environ.get("DINOV2_OFFLINE", "").lower() not in ("", "0", "false", "no")
