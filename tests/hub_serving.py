"""A small server of files with ranges and tags, which can break off and misbehave, and a door to it for https."""

import re
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any


@dataclass
class Server:
    """What is served, how, and what was asked for.

    Attributes:
        files: contents by path.
        tag: of all files; empty: none.
        ranges: whether parts are sent on request.
        break_after: bytes after which a connection ends, for each request in turn; None: it does not.
        answers: status and headers instead of the file, for each request in turn; None: the file.
        stall: what a request waits for after its headers; None: nothing.
        says_length: whether Content-Length is sent.
        headers: of the last request.
        requests: path and Range header of every request.
    """

    files: dict[str, bytes]
    tag: str = '"1"'
    ranges: bool = True
    break_after: list[int | None] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str]] | None] = field(default_factory=list)
    stall: Event | None = None
    says_length: bool = True
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    port: int = 0

    def open(self, request: urllib.request.Request) -> Any:
        """Send a request for https://files.test here."""
        local = request.full_url.replace("https://files.test", f"http://127.0.0.1:{self.port}")
        return urllib.request.urlopen(urllib.request.Request(local, headers=dict(request.header_items())), timeout=10)


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Serve for the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            server.requests.append((self.path, wanted))
            server.headers = dict(self.headers)
            answer = server.answers.pop(0) if server.answers else None
            if answer is not None:
                self.send_response(answer[0])
                for name, value in {**answer[1], "Content-Length": "0"}.items():
                    self.send_header(name, value)
                self.end_headers()
                return
            content = server.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            start = 0
            if wanted and server.ranges and self.headers.get("If-Range") == server.tag:
                start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
                if start >= len(content):
                    self.send_error(416)
                    return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if server.tag:
                self.send_header("ETag", server.tag)
            if server.says_length:
                self.send_header("Content-Length", str(len(content) - start))
            self.close_connection = not server.says_length
            self.end_headers()
            if server.stall is not None:
                server.stall.wait(timeout=60)
            limit = server.break_after.pop(0) if server.break_after else None
            self.wfile.write(content[start : None if limit is None else start + limit])
            if limit is not None:
                self.close_connection = True

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.handle_error = lambda *args: None  # type: ignore[method-assign]  # a client that has left
    server.port = http.server_port
    thread = Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join(timeout=10)
