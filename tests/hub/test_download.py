"""Downloads are resumed, checked, whole or not there, and https only."""

import errno
import hashlib
import io
import resource
import threading
import urllib.request
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hub_serving import Server, serving

from dinov2.hub import download, transfer
from dinov2.hub.download import (
    ATTEMPTS,
    DownloadError,
    _HttpsRedirects,
    _Part,
    ascii_url,
    check_https,
    fetch,
    open_https,
)
from dinov2.utils import locks

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


def left(folder: Path) -> list[str]:
    """Files of a folder, but for locks."""
    return [path.name for path in folder.iterdir() if path.is_file() and path.suffix != ".lock"]


@pytest.fixture
def pauses(monkeypatch):
    """Seconds that are slept."""
    slept: list[float] = []
    monkeypatch.setattr(download, "PAUSE", 0.5)
    monkeypatch.setattr(download.time, "sleep", slept.append)
    return slept


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (503, {}, 0.5),
        (500, {"Retry-After": "soon"}, 0.5),
        (429, {"Retry-After": "7"}, 7),
        (503, {"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0),
    ],
)
def test_a_busy_server_is_asked_again(status, headers, expected, server, tmp_path, pauses):
    server.answers = [(status, headers), (status, headers)]
    assert get(server, tmp_path / "w.pth", sha256=SHA256).read_bytes() == CONTENT
    assert pauses[0] == expected and len(pauses) == 2


def test_a_busy_server_may_name_a_time(server, tmp_path, pauses):
    soon = datetime.now(timezone.utc) + timedelta(seconds=90)
    server.answers = [(502, {"Retry-After": format_datetime(soon, usegmt=True)})]
    get(server, tmp_path / "w.pth", sha256=SHA256)
    assert pauses == [pytest.approx(90, abs=60)]


def test_a_server_that_stays_busy_is_given_up(server, tmp_path, pauses):
    server.answers = [(503, {})] * ATTEMPTS
    with pytest.raises(DownloadError, match=r"5 attempts in a row.*HTTP Error 503"):
        get(server, tmp_path / "w.pth")
    assert pauses == [0.5, 1, 2, 4]
    server.answers = [(429, {"Retry-After": "86400"})]
    with pytest.raises(DownloadError, match="HTTP Error 429.*asks to come again in 86,400 seconds"):
        get(server, tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (401, "after a log-in only.*log in there, agree to its terms, and give a token of yours in HF_TOKEN"),
        (403, "not handed out to everybody.*HF_TOKEN"),
        (404, "there is no such file"),
        (410, "no longer there"),
    ],
)
def test_a_refusal_is_not_tried_again(status, meaning, server, tmp_path, pauses):
    server.answers = [(status, {})]
    with pytest.raises(DownloadError, match=f"HTTP Error {status}.*{meaning}"):
        get(server, tmp_path / "w.pth")
    assert (len(server.requests), pauses) == (1, [])


def test_a_token_goes_to_hugging_face_alone(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_1")
    get(server, tmp_path / "a.pth")
    assert "Authorization" not in server.headers
    request = _Part("https://huggingface.co/a/b/resolve/main/w.pth", tmp_path / "b.pth")._request()
    assert request.get_header("Authorization") == "Bearer hf_1"
    elsewhere = _HttpsRedirects().redirect_request(request, None, 302, "Found", {}, "https://cdn.test/w")
    assert "Authorization" not in dict(elsewhere.header_items())


@pytest.mark.parametrize("what", ["headers only", "nothing", "byte by byte"])
def test_a_server_that_never_completes_is_given_up(what, server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "TIMEOUT", 0.05)
    done = threading.Event()

    class Trickle(io.RawIOBase):
        status, headers = 200, {"Content-Length": "1000000"}

        def read1(self, size: int) -> bytes:
            done.wait(0.001)
            return b"\x80"

    def opener(request: urllib.request.Request) -> Any:
        if what == "nothing":
            done.wait(60)
        return Trickle() if what == "byte by byte" else server.open(request)

    server.stall = done
    with pytest.raises(DownloadError, match=r"5 attempts in a row brought next to nothing: [\d,]+ bytes came in 0.05"):
        fetch([URL], tmp_path / "w.pth", opener=opener, progress=False)
    done.set()
    assert not (tmp_path / "w.pth").exists()


def test_a_slow_server_is_waited_for(server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "LEAST", 1000)
    server.break_after = [2001, 2001, None]  # a hundredth of the file and more
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    assert get(server, tmp_path / "w.pth", sha256=SHA256).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"<!doctype html><title>Log in</title>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs.*On Hugging Face the file itself is at /resolve/"),
        (b'{"error": "gated"}', "JSON"),
        (b"", "empty"),
        (b"PK\x03\x04" + CONTENT, "truncated"),
    ],
)
@pytest.mark.parametrize("says_length", [True, False])
def test_what_is_no_weights_is_not_kept(content, what, says_length, server, tmp_path):
    server.files["/raw/w.pth"], server.says_length = content, says_length
    with pytest.raises(DownloadError, match=f"what came is no file of weights: .*{what}"):
        get(server, tmp_path / "w.pth", "https://files.test/raw/w.pth")
    assert left(tmp_path) == []


@pytest.mark.parametrize("inside", [b"<html>", CONTENT[::-1]])
def test_a_file_of_the_cache_is_checked(inside, server, tmp_path):
    target = tmp_path / "w.pth"
    target.write_bytes(inside)
    with pytest.raises(DownloadError, match="expected 000"):
        get(server, target, sha256="0" * 64)
    assert target.read_bytes() == inside
    assert get(server, target, sha256=SHA256).read_bytes() == CONTENT


def test_a_disk_without_room(server, tmp_path, monkeypatch):
    usage = SimpleNamespace(free=1000)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(
        DownloadError, match="cannot be kept in .*: it has 200,000 bytes, and .* room for 1,000. DINOV2_HOME"
    ):
        get(server, tmp_path / "w.pth")
    assert left(tmp_path) == []
    monkeypatch.undo()
    with pytest.raises(DownloadError, match="w.pth cannot be kept in /dev/full/a: Not a directory. DINOV2_HOME"):
        get(server, Path("/dev/full/a/w.pth"))


def test_a_cache_without_locks(server, tmp_path, monkeypatch):
    """As on Lustre without `-o flock`."""

    def no_lock(*args: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(locks.fcntl, "flock", no_lock)
    assert get(server, tmp_path / "w.pth").read_bytes() == CONTENT
    assert left(tmp_path) == ["w.pth"]


def test_a_disk_that_fills(server, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(DownloadError, match="w.pth cannot be kept in .*: File too large. DINOV2_HOME names"):
            get(server, tmp_path / "w.pth")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert left(tmp_path) == []
    assert len(server.requests) == 1


def test_a_part_of_another_version_that_comes_all_the_same(server, tmp_path):
    """A server that sends the rest of whatever it has now."""
    server.break_after = [70_000, None]
    opened = []

    def opener(request: urllib.request.Request) -> Any:
        opened.append(request.get_header("Range"))
        if len(opened) == 2:
            server.tag, server.files["/w.pth"] = '"2"', CONTENT[::-1]
            request.add_header("If-Range", '"2"')
        return server.open(request)

    assert fetch([URL], tmp_path / "w.pth", opener=opener, progress=False).read_bytes() == CONTENT[::-1]
    assert opened == [None, "bytes=70000-", None]


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://files.test/Gewebe ä/w.pth?name=é", "https://files.test/Gewebe%20%C3%A4/w.pth?name=%C3%A9"),
        ("https://bücher.test/w%20x.pth?a=1&b=%2F", "https://xn--bcher-kva.test/w%20x.pth?a=1&b=%2F"),
        ("https://files.test:8443/模型.pth#top", "https://files.test:8443/%E6%A8%A1%E5%9E%8B.pth"),
    ],
)
def test_addresses_of_other_letters(url, sent):
    assert ascii_url(url) == sent
    check_https(url)


@pytest.mark.parametrize("url", ["https://" + "ü" * 80 + ".test/w", "https://[1:2/w"])
def test_addresses_that_are_none(url):
    with pytest.raises(DownloadError, match="is no address"):
        check_https(url)


def test_variables_of_a_proxy_count(monkeypatch):
    asked = []

    class Proxy(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            asked.append(self.path)
            self.send_error(407)

        def log_message(self, *args: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, args=(0.01,), daemon=True).start()
        for name in ("no_proxy", "NO_PROXY", "HTTPS_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.server_port}")
        with pytest.raises(OSError, match="407"):
            open_https(urllib.request.Request(URL))
        proxy.shutdown()
    assert asked == ["files.test:443"]
