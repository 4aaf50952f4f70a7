"""Fixtures of the data tests."""

from pathlib import Path

import pytest
from tar_making import END, member, noise


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    """Ten tiles t0.jpg to t9.jpg in a/ and b/, and same.jpg in both."""
    path = tmp_path / "tiles.tar"
    names = [f"{'ab'[i % 2]}/t{i}.jpg" for i in range(10)] + ["a/same.jpg", "b/same.jpg"]
    path.write_bytes(b"".join(member(name.encode(), noise(i, 100 + 70 * i)) for i, name in enumerate(names)) + END)
    return path
