"""Downloads are resumed, checked, whole or not there, and https only."""

import hashlib
import threading
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from hub_serving import Server, serving

from dinov2.hub.download import ATTEMPTS, DownloadError, _HttpsRedirects, fetch

CONTENT = np.random.default_rng(0).integers(0, 256, 200_000, dtype=np.uint8).tobytes()
SHA256 = hashlib.sha256(CONTENT).hexdigest()
URL = "https://files.test/w.pth"


@pytest.fixture
def server():
    with serving(Server({"/w.pth": CONTENT})) as server:
        yield server


def get(server: Server, target: Path, *urls: str, sha256: str = "") -> Path:
    return fetch(urls or (URL,), target, sha256=sha256, opener=server.open, progress=False)


def test_a_file_is_fetched_once(server, tmp_path):
    target = tmp_path / "a" / "w.pth"
    assert get(server, target, sha256=SHA256.upper()).read_bytes() == CONTENT
    assert get(server, target).read_bytes() == CONTENT
    assert server.requests == [("/w.pth", None)]
    assert [path.name for path in target.parent.iterdir() if "part" in path.name] == []


def test_a_broken_connection_is_resumed(server, tmp_path):
    server.break_after = [70_000, 50_000, None]
    assert get(server, tmp_path / "w.pth", sha256=SHA256).read_bytes() == CONTENT
    assert server.requests == [("/w.pth", None), ("/w.pth", "bytes=70000-"), ("/w.pth", "bytes=120000-")]


def test_the_same_command_goes_on_later(server, tmp_path):
    server.break_after = [70_000, *[0] * ATTEMPTS]
    with pytest.raises(DownloadError, match="70,000 bytes are here"):
        get(server, tmp_path / "w.pth")
    assert not (tmp_path / "w.pth").exists()
    server.requests.clear()
    assert get(server, tmp_path / "w.pth", sha256=SHA256).read_bytes() == CONTENT
    assert server.requests == [("/w.pth", "bytes=70000-")]


@pytest.mark.parametrize("how", ["another version", "no ranges", "no tag"])
def test_parts_of_two_versions_are_never_joined(server, tmp_path, how):
    server.tag = "" if how == "no tag" else '"1"'
    server.break_after = [70_000, *[0] * ATTEMPTS]
    with pytest.raises(DownloadError):
        get(server, tmp_path / "w.pth")
    server.files["/w.pth"] = CONTENT[::-1]
    server.tag, server.ranges = {"another version": ('"2"', True), "no ranges": ('"1"', False), "no tag": ("", True)}[
        how
    ]
    assert get(server, tmp_path / "w.pth").read_bytes() == CONTENT[::-1]


def test_a_file_with_another_checksum_is_removed(server, tmp_path):
    with pytest.raises(DownloadError, match=f"has SHA-256 {SHA256}, expected {'0' * 64}"):
        get(server, tmp_path / "w.pth", sha256="0" * 64)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock" and path.is_file()] == []


def test_the_next_address_is_tried(server, tmp_path):
    missing = "https://files.test/none.pth"
    assert get(server, tmp_path / "w.pth", missing, URL).read_bytes() == CONTENT
    with pytest.raises(DownloadError, match=f"none.pth: HTTP Error 404.*put the file at {tmp_path / 'x.pth'} yourself"):
        get(server, tmp_path / "x.pth", missing)


def test_a_part_that_is_already_whole(server, tmp_path):
    server.break_after = [70_000, *[0] * ATTEMPTS]
    with pytest.raises(DownloadError):
        get(server, tmp_path / "w.pth")
    (tmp_path / ".w.pth.part").write_bytes(CONTENT)  # all came, and the program was killed before the rename
    assert get(server, tmp_path / "w.pth", sha256=SHA256).read_bytes() == CONTENT


def test_several_processes_download_once(server, tmp_path):
    threads = [threading.Thread(target=get, args=(server, tmp_path / "w.pth")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    assert server.requests == [("/w.pth", None)]


@pytest.mark.parametrize("url", ["http://files.test/w.pth", "file:///etc/passwd", "HTTPS:/w", ""])
def test_only_https(server, tmp_path, url):
    with pytest.raises(DownloadError, match="no https address"):
        get(server, tmp_path / "w.pth", url)
    with pytest.raises(DownloadError, match="no https address"):
        _HttpsRedirects().redirect_request(urllib.request.Request(URL), None, 302, "Found", {}, url)
    assert server.requests == []
