"""A hub on the loopback: files of repositories, some behind a gate, as huggingface_hub asks for them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, cast

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """What is served: ``ORGANISATION/NAME/FILE`` below a folder; repositories in ``gated`` take a token.

    Attributes:
        requests: The paths that were asked for.
        tokens: The headers of authorisation that came along.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.gated = folder, set[str]()
        self.requests, self.tokens = list[str](), list[str]()
        self.endpoint = ""


class _Handler(BaseHTTPRequestHandler):
    """Answers for a hub, which the server carries."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self.wfile.write(self._answer())

    def _answer(self) -> bytes:
        """Send what stands in front of a file, and return the file."""
        hub: Hub = cast("Any", self.server).hub
        hub.requests.append(self.path)
        if token := self.headers.get("Authorization"):
            hub.tokens.append(token)
        repository, _, rest = self.path.lstrip("/").partition("/resolve/")
        file = hub.folder / repository / rest.partition("/")[2]
        if repository in hub.gated:
            return self._send(401, {"X-Error-Code": "GatedRepo"})
        if not (hub.folder / repository).is_dir():
            return self._send(401, {})
        if not file.is_file():
            return self._send(404, {"X-Error-Code": "EntryNotFound"})
        content = file.read_bytes()
        return self._send(200, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"'}, content)

    def _send(self, status: int, headers: dict[str, str], content: bytes = b"") -> bytes:
        self.send_response(status)
        for name, value in {"X-Repo-Commit": COMMIT, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        return content

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Serve while entered, and say in ``endpoint`` where."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.hub = hub
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
