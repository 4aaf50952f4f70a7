"""Files from the network: over https only, resumed where they broke off, checked, and whole or not there."""

import fcntl
import logging
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dinov2.errors import UserError
from dinov2.utils.atomic import fsync, write_text
from dinov2.utils.checkpoint.files import hash_file

logger = logging.getLogger("dinov2")

Opener = Callable[[urllib.request.Request], Any]  # what sends a request, and returns a response to read from

ATTEMPTS = 5  # in a row that bring nothing, until an address is given up
TIMEOUT = 60.0  # seconds without a byte
_BLOCK = 1 << 20  # bytes read at a time


class DownloadError(UserError):
    """A file that could not be fetched, or is not the one that was asked for."""


class _HttpsRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no address that is not https."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
        """The request for the next address."""
        check_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def open_https(request: urllib.request.Request) -> Any:
    """Send a request over https."""
    return urllib.request.build_opener(_HttpsRedirects).open(request, timeout=TIMEOUT)


def check_https(url: str) -> None:
    """Refuse any other kind of address.

    Raises:
        DownloadError: for it.
    """
    if not url.startswith("https://"):
        raise DownloadError(f"{url} is no https address, and nothing else is fetched")


def fetch(
    urls: Sequence[str], target: Path, *, sha256: str = "", opener: Opener = open_https, progress: bool = True
) -> Path:
    """Download a file unless it is there; of several processes that ask for it, one does.

    Args:
        urls: to be tried in turn.
        sha256: of the file, if that is known.
    Returns:
        `target`.
    Raises:
        DownloadError: if no address gives the file, or it has another checksum.
    """
    for url in urls:
        check_https(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target):
        if target.is_file():
            return target
        failures = []
        for url in urls:
            try:
                part = _Part(url, target)
                part.complete(opener, progress=progress)
                part.publish(sha256)
                return target
            except (OSError, HTTPException) as error:
                failures.append(f"{url}: {error}")
    raise DownloadError(
        f"{target.name} could not be downloaded: {'; '.join(failures)}. The same command goes on where it stopped; "
        f"or put the file at {target} yourself"
    )


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """The only process on this file for the block; others wait."""
    with target.with_name(f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class _Part:
    """What has been downloaded so far, in a hidden file beside the target.

    Beside it is a note of its address and the server's tag of the version, so that parts of two versions never make
    one file.
    """

    def __init__(self, url: str, target: Path) -> None:
        self.url, self.target = url, target
        self.path = target.with_name(f".{target.name}.part")
        self.note = target.with_name(f".{target.name}.part.txt")
        self.total: int | None = None

    @property
    def size(self) -> int:
        """Bytes that are there."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def complete(self, opener: Opener, *, progress: bool) -> None:
        """Fetch what is missing, again where a connection breaks.

        Raises:
            OSError, HTTPException: if nothing more comes.
        """
        fruitless = 0
        while True:
            before = self.size
            try:
                self._receive(opener, progress=progress)
                if self.total is None or self.size == self.total:
                    return
                raise ConnectionError(f"{self.size:,} of {self.total:,} bytes came")
            except urllib.error.HTTPError as error:
                if error.code != 416 or not before:  # 416: there is nothing behind what is here
                    raise
                self.drop()
                fruitless += 1
            except (OSError, HTTPException) as error:
                fruitless = 0 if self.size > before else fruitless + 1
                logger.info(f"{self.url}: {error}; {self.size:,} bytes are here")
            if fruitless >= ATTEMPTS:
                raise ConnectionError(f"{ATTEMPTS} attempts in a row brought nothing; {self.size:,} bytes are here")

    def publish(self, sha256: str) -> None:
        """Check the file and put it in its place.

        Raises:
            DownloadError: if it has another checksum; it is then removed.
        """
        found = hash_file(self.path).sha256
        if sha256 and found != sha256.lower():
            self.drop()
            raise DownloadError(
                f"{self.url} has SHA-256 {found}, expected {sha256}: it is another file, and was removed"
            )
        fsync(self.path)
        self.path.replace(self.target)
        self.note.unlink(missing_ok=True)
        fsync(self.target.parent)
        logger.info(f"downloaded {self.target}, SHA-256 {found}{' as published' if sha256 else ''}")

    def drop(self) -> None:
        """Forget what is here."""
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def _receive(self, opener: Opener, *, progress: bool) -> None:
        """One request, and all that it brings."""
        request = urllib.request.Request(self.url, headers={"User-Agent": "dinov2-pathology"})
        url, tag = self._noted()
        if self.size and url == self.url and tag:
            request.add_header("Range", f"bytes={self.size}-")
            request.add_header("If-Range", tag)
        else:
            self.drop()
        with opener(request) as response:
            start = self._start_of(response)
            write_text(self.note, f"{self.url}\n{_strong_tag(response)}\n")
            with self.path.open("r+b" if start else "wb") as file:
                file.truncate(start)
                file.seek(start)
                bar = tqdm(initial=start, total=self.total, unit="B", unit_scale=True, disable=not progress)
                with bar:
                    while block := response.read(_BLOCK):
                        file.write(block)
                        bar.update(len(block))

    def _start_of(self, response: Any) -> int:
        """The first byte of the file that a response brings; its total is remembered."""
        if response.status == 206:
            match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
            if not match or int(match[1]) != self.size:
                self.drop()
                raise ConnectionError("the server answered with another part than was asked for")
            self.total = int(match[2])
            return int(match[1])
        length = response.headers.get("Content-Length")
        self.total = int(length) if length and length.isdigit() else None
        return 0

    def _noted(self) -> tuple[str, str]:
        """Address and tag of what is here."""
        lines = self.note.read_text(encoding="utf-8").splitlines() if self.note.is_file() else []
        return (lines[0], lines[1]) if len(lines) == 2 else ("", "")


def _strong_tag(response: Any) -> str:
    """What tells versions of a file apart byte for byte; empty where the server does not say."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else ""
