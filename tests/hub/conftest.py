"""A cache folder of its own for each test, and no network."""

import socket
from pathlib import Path
from typing import Any

import pytest

from dinov2.hub import download, registry


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the cache; a connection to anything but this machine fails the test."""
    monkeypatch.setenv("DINOV2_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DINOV2_OFFLINE", raising=False)
    lookup = socket.getaddrinfo

    def only_here(host: str, *args: Any, **kwargs: Any) -> Any:
        assert host == "127.0.0.1", f"the network was used: {host}"
        return lookup(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", only_here)
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    registry.show_notice.cache_clear()
    return tmp_path / "home" / "weights"
