"""Files from the network: over https only, resumed where they broke off, checked, and whole or not there."""

import errno
import logging
import os
import re
import shutil
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from tqdm import tqdm

from dinov2.errors import UserError
from dinov2.models.weights.file_kind import kind_of
from dinov2.utils.atomic import fsync, write_text
from dinov2.utils.checkpoint.files import hash_file
from dinov2.utils.locks import locked

from .transfer import LONGEST_PAUSE, TIMEOUT, Opener, Transfer, TransferError

logger = logging.getLogger("dinov2")

ATTEMPTS = 5  # in a row that bring next to nothing, until an address is given up
PAUSE = 0.5  # seconds before the second of them, doubled before each one after it
_PATIENCE = 14_400.0  # seconds that another process may take for a file
_LARGEST = 1 << 37  # bytes of a file, 30 times those of ViT-g
_HUGGING_FACE = ("huggingface.co", "hf.co")


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
    try:
        ascii_url(url)
    except ValueError as error:
        raise DownloadError(f"{url} is no address: {error}") from error


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
        DownloadError: if no address gives the file, it has another checksum, is no weights, or finds no room.
    """
    for url in urls:
        check_https(url)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.with_name(f".{target.name}.lock"), patience=_PATIENCE):
            if target.is_file() and not fault_of(target, sha256):
                return target
            return _fetch_first(urls, target, sha256, opener, progress)
    except OSError as error:  # of the disk; the network has errors of its own
        raise DownloadError(
            f"{target.name} cannot be kept in {target.parent}: {error.strerror or error}. DINOV2_HOME names another "
            "folder for downloads"
        ) from error


def fault_of(path: Path, sha256: str = "") -> str:
    """What is wrong with a file that has been downloaded; empty where nothing is.

    Args:
        sha256: that it must have; any, if empty.
    """
    try:
        kind_of(path)
    except UserError as error:
        return str(error)
    found = hash_file(path).sha256 if sha256 else ""
    return f"{path} has SHA-256 {found}, expected {sha256}: it is another file" if found != sha256.lower() else ""


def _fetch_first(urls: Sequence[str], target: Path, sha256: str, opener: Opener, progress: bool) -> Path:
    """Download from the first address that gives the file."""
    failures = []
    for url in urls:
        part = _Part(url, target)
        try:
            part.complete(opener, progress=progress)
            part.publish(sha256)
            return target
        except (TransferError, DownloadError) as error:
            failures.append(f"{url}: {error}")
        except OSError:
            part.drop()
            raise
    raise DownloadError(
        f"{target.name} could not be downloaded: {'; '.join(failures)}. The same command goes on where it stopped; "
        f"or put the file at {target} yourself"
    )


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
        """Fetch what is missing, again where a connection breaks or the server is busy.

        Raises:
            TransferError: if nothing more comes.
            OSError: if there is no room for it.
        """
        fruitless = 0
        while True:
            before = self.size
            try:
                return self._receive(opener, progress=progress)
            except TransferError as error:
                if error.code == 416 and before:  # there is nothing behind what is here
                    self.drop()
                elif not error.again:
                    raise
                enough = min(1 << 20, (self.total or 0) // 100 + 1)
                fruitless = 0 if self.size >= before + enough else fruitless + 1
                said = f"{error}; {self.size:,} bytes are here"
                pause = PAUSE * 2 ** (fruitless - 1) if error.pause is None else error.pause
                if fruitless >= ATTEMPTS:
                    raise TransferError(f"{ATTEMPTS} attempts in a row brought next to nothing: {said}") from error
                if pause > LONGEST_PAUSE:
                    raise TransferError(f"{said}. The server asks to come again in {pause:,.0f} seconds") from error
            logger.info(f"{self.url}: {said}; again in {pause:g} seconds")
            time.sleep(pause)

    def publish(self, sha256: str) -> None:
        """Check the file and put it in its place.

        Raises:
            DownloadError: if it is no file of weights, or has another checksum; it is then removed.
        """
        if fault := fault_of(self.path, sha256):
            self.drop()
            hint = ". On Hugging Face the file itself is at /resolve/" if re.search("/(blob|raw)/", self.url) else ""
            raise DownloadError(f"{fault.replace(str(self.path), 'what came')}, and was removed{hint}")
        fsync(self.path)
        self.path.replace(self.target)
        self.note.unlink(missing_ok=True)
        fsync(self.target.parent)
        found = f"{sha256.lower()} as published" if sha256 else hash_file(self.target).sha256
        logger.info(f"downloaded {self.target}, SHA-256 {found}")

    def drop(self) -> None:
        """Forget what is here."""
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def _receive(self, opener: Opener, *, progress: bool) -> None:
        """One request, and all that it brings."""
        with Transfer(opener, self._request()) as transfer:
            start = self._start_of(transfer.response)
            self._check_room()
            write_text(self.note, f"{self.url}\n{_strong_tag(transfer.response)}\n")
            bar = tqdm(initial=start, total=self.total, unit="B", unit_scale=True, disable=not progress)
            with self.path.open("r+b" if start else "wb") as file, bar:
                file.truncate(start)
                file.seek(start)
                for block in transfer.blocks():
                    file.write(block)
                    bar.update(len(block))
                    if file.tell() > _LARGEST:
                        raise TransferError(f"more than {_LARGEST:,} bytes come", again=False)
        if self.total is not None and self.size != self.total:
            raise TransferError(f"{self.size:,} of {self.total:,} bytes came")

    def _request(self) -> urllib.request.Request:
        """The request for what is missing; of another address or version, for all of it."""
        request = urllib.request.Request(ascii_url(self.url), headers={"User-Agent": "dinov2-pathology"})
        token = os.environ.get("HF_TOKEN")
        if token and urlsplit(self.url).hostname in _HUGGING_FACE:
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        url, tag = self._noted()
        if self.size and url == self.url and tag:
            request.add_header("Range", f"bytes={self.size}-")
            request.add_header("If-Range", tag)
        else:
            self.drop()
        return request

    def _start_of(self, response: Any) -> int:
        """The first byte of the file that a response brings; its total is remembered."""
        if response.status == 206:
            match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
            if not match or int(match[1]) != self.size or _strong_tag(response) not in ("", self._noted()[1]):
                self.drop()
                raise TransferError("the server answered with another part than was asked for")
            self.total = int(match[2])
            return int(match[1])
        length = response.headers.get("Content-Length")
        self.total = int(length) if length and length.isdigit() else None
        return 0

    def _check_room(self) -> None:
        """Refuse a file that the disk has no room for, before it is full.

        Raises:
            OSError: there is no room.
        """
        free = shutil.disk_usage(self.path.parent).free + self.size
        if self.total is not None and self.total > free:
            raise OSError(errno.ENOSPC, f"it has {self.total:,} bytes, and there is room for {free:,}")

    def _noted(self) -> tuple[str, str]:
        """Address and tag of what is here."""
        lines = self.note.read_text(encoding="utf-8").splitlines() if self.note.is_file() else []
        return (lines[0], lines[1]) if len(lines) == 2 else ("", "")


def ascii_url(url: str) -> str:
    """An address as it is sent: other letters and blanks of its path percent-encoded, those of its host in IDNA."""
    parts = urlsplit(url)
    host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode("ascii")
    path, query = (quote(part, safe="%/:=&?~#+!$,;'@()*[]") for part in (parts.path, parts.query))
    return parts._replace(netloc=host, path=path, query=query, fragment="").geturl()


def _strong_tag(response: Any) -> str:
    """What tells versions of a file apart byte for byte; empty where the server does not say."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else ""
