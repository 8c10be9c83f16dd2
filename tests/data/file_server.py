"""A real HTTP server that gives the files of a folder, in part where it is asked to, and breaks off when told to."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast
from urllib.parse import unquote


@dataclass
class FileServer:
    """What the server gives and what it was asked.

    Args:
        folder: Its files.
        breaks: For each of the next answers, after how many bytes the connection breaks off.
        statuses: Statuses with which the next requests are refused.
        ranges: Whether parts are given where they are asked for.
        tag: What names the state of every file; none where it is empty.
    """

    folder: Path
    breaks: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    ranges: bool = True
    tag: str = '"first"'
    address: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    sent: int = 0

    def url(self, name: str) -> str:
        return f"{self.address}/{name}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        state = cast("_Server", self.server).state
        name, wanted = unquote(self.path.rpartition("/")[2]), self.headers.get("Range", "")
        state.asked.append((name, wanted))
        if state.statuses:
            self._refuse(state.statuses.pop(0))
        elif not (state.folder / name).is_file():
            self._refuse(404)
        else:
            self._give(state, (state.folder / name).read_bytes(), wanted)

    def _give(self, state: FileServer, content: bytes, wanted: str) -> None:
        start, status = 0, 200
        match = re.fullmatch(r"bytes=(\d+)-", wanted)
        same = self.headers.get("If-Range", state.tag) == state.tag
        if match and state.ranges and same:
            start, status = int(match[1]), 206
        if start and start >= len(content):
            self._refuse(416, f"bytes */{len(content)}")
            return
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if state.tag:
            self.send_header("ETag", state.tag)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        part = content[start:]
        if state.breaks:
            part = part[: state.breaks.pop(0)]
            self.close_connection = True
        state.sent += len(part)
        self.wfile.write(part)

    def _refuse(self, status: int, content_range: str = "") -> None:
        self.send_response(status)
        if content_range:
            self.send_header("Content-Range", content_range)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, state: FileServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.state = state


@contextmanager
def serve(folder: Path) -> Iterator[FileServer]:
    """Serve a folder on a free port of this machine."""
    state = FileServer(folder)
    server = _Server(state)
    state.address = f"http://127.0.0.1:{server.server_port}/release"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
