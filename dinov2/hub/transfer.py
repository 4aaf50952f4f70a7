"""One answer of a server, read under a clock, and what it means when there is none."""

import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any

Opener = Callable[[urllib.request.Request], Any]  # what sends a request, and returns a response to read from

TIMEOUT = 30.0  # seconds in which at least `LEAST` bytes have to come
LEAST = 32 << 10
LONGEST_PAUSE = 120.0  # seconds that are waited at a server's request
_BLOCK = 1 << 20  # bytes read at a time
_BUSY = {408, 425, 429}  # and all from 500 on: the same request may succeed later
_MEANINGS = {
    401: "it is handed out after a log-in only, or there is no such file",
    403: "it is not handed out to everybody, or not to this machine",
    404: "there is no such file at this address",
    410: "the file is no longer there",
}
_GATED = (
    "For a gated model of Hugging Face, log in there, agree to its terms, and give a token of yours in HF_TOKEN; "
    "from elsewhere, download it with a browser and give its path instead"
)


class TransferError(Exception):
    """A transfer that brought no whole answer.

    Attributes:
        code: HTTP status; 0 without an answer.
        again: whether the same request may succeed later.
        pause: seconds that the server asks to wait, if it does.
    """

    def __init__(self, message: str, *, code: int = 0, again: bool = True, pause: float | None = None) -> None:
        super().__init__(message)
        self.code, self.again, self.pause = code, again, pause


class Transfer:
    """A request that is on its way.

    It is sent and read in a thread of its own: looking up a name, an answer that comes byte by byte, and a server that
    sends nothing are all given up by the same clock, wherever they stand.
    """

    def __init__(self, opener: Opener, request: urllib.request.Request) -> None:
        self._queue: Queue[Any] = Queue(maxsize=16)
        self._given_up = Event()
        Thread(target=self._receive, args=(opener, request), name="download", daemon=True).start()
        self.response = self._next(TIMEOUT)  # status and headers

    def __enter__(self) -> "Transfer":
        return self

    def __exit__(self, *error: object) -> None:
        self._given_up.set()

    def blocks(self) -> Iterator[bytes]:
        """What the answer brings.

        Raises:
            TransferError: if it breaks off, or next to nothing comes.
        """
        start, came = time.monotonic(), 0
        while block := self._next(start + TIMEOUT - time.monotonic(), came):
            yield block
            came += len(block)
            if came >= LEAST:
                start, came = time.monotonic(), 0

    def _next(self, seconds: float, came: int = 0) -> Any:
        try:
            found = self._queue.get(timeout=max(seconds, 0))
        except Empty:
            self._given_up.set()
            raise TransferError(f"{came:,} bytes came in {TIMEOUT:g} seconds") from None
        if isinstance(found, BaseException):
            raise _explained(found)
        return found

    def _receive(self, opener: Opener, request: urllib.request.Request) -> None:
        try:
            with opener(request) as response:
                self._put(response)
                while not self._given_up.is_set():
                    block = response.read1(_BLOCK)  # what is there, without waiting for more
                    self._put(block)
                    if not block:
                        return
        except BaseException as error:  # for the thread that waits
            self._put(error)

    def _put(self, item: Any) -> None:
        while not self._given_up.is_set():
            with suppress(Full):
                self._queue.put(item, timeout=1)
                return


def _explained(error: BaseException) -> BaseException:
    """A `TransferError` for what networks and servers do; anything else as it is."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        meaning = _MEANINGS.get(error.code, "")
        hint = f"{f': {meaning}' if meaning else ''}{f'. {_GATED}' if error.code in (401, 403) else ''}"
        again = error.code in _BUSY or error.code >= 500
        return TransferError(
            f"{error}{hint}", code=error.code, again=again, pause=_asked_pause(error) if again else None
        )
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return TransferError(
            f"{reason}. SSL_CERT_FILE names the certificates of a proxy or server of yours", again=False
        )
    if isinstance(error, OSError | HTTPException):
        return TransferError(str(error) or repr(error))
    return error


def _asked_pause(error: urllib.error.HTTPError) -> float | None:
    """Seconds of Retry-After, which is a number or a date."""
    asked = (error.headers.get("Retry-After") or "").strip()
    if re.fullmatch(r"\d{1,9}", asked):
        return float(asked)
    try:
        date = parsedate_to_datetime(asked)
    except ValueError:
        return None
    return max((date.replace(tzinfo=date.tzinfo or timezone.utc) - datetime.now(timezone.utc)).total_seconds(), 0.0)
