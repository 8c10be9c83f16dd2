"""A hub on the loopback: files of repositories, some behind a gate, as huggingface_hub asks for them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

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


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Serve while entered, and say in ``endpoint`` where."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            hub.requests.append(self.path)
            if token := self.headers.get("Authorization"):
                hub.tokens.append(token)
            repository, _, rest = self.path.lstrip("/").partition("/resolve/")
            file = hub.folder / repository / rest.partition("/")[2]
            if repository in hub.gated:
                self._refuse(401, "GatedRepo")
            elif not (hub.folder / repository).is_dir():
                self._refuse(401, "")
            elif not file.is_file():
                self._refuse(404, "EntryNotFound")
            else:
                content = file.read_bytes()
                self.send_response(200)
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if with_body:
                    self.wfile.write(content)

        def _refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Repo-Commit", COMMIT)
            if code:
                self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
