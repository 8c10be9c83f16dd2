"""Getting one file from an address: what has arrived is kept, what is wrong is not."""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from petlbench.core.errors import InputError
from petlbench.core.progress import Progress
from petlbench.core.text import without_password

if TYPE_CHECKING:
    from requests import Response


_MIB = 1 << 20
_BLOCK = 1 << 16
"""Bytes that are written at once; of a connection that breaks off, the last incomplete block is lost."""
_WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each new attempt, counted anew whenever something has arrived."""
_TIMEOUTS = (15, 60)
"""Seconds to wait for a connection, and for the next bytes."""
_OTHER_WAY = "fetch it in another way and give its folder with --from, or name a mirror with --mirror"


def download(
    url: str,
    file: Path,
    progress: Progress,
    *,
    checksum: str | None = None,
    size: int | None = None,
    waits: tuple[float, ...] = _WAITS,
) -> None:
    """Download one file, whole or not at all; what an earlier call has left off is gone on with.

    Args:
        url: The address.
        file: The file to make; nothing is fetched where it is there with the right checksum.
        progress: Told of every MiB.
        checksum: ``sha256:…`` or ``md5:…`` where it is known.
        size: Bytes where they are known.
        waits: Seconds before each new attempt.

    Raises:
        InputError: When the address cannot be reached or refuses, or what it gives is not the expected file.
    """
    import pooch
    from requests import RequestException

    pooch.get_logger().setLevel(logging.WARNING)
    resuming = _Resuming(file, progress, size, waits)
    resuming.clean()
    try:
        pooch.retrieve(url, checksum, file.name, file.parent, downloader=resuming)
    except RequestException as error:
        raise InputError(
            f"{without_password(url)} cannot be downloaded: {_reason(error, url)}",
            hint=f"the same command goes on where it stopped; or {_OTHER_WAY}",
            kind="download_failed",
        ) from error
    except ValueError as error:
        resuming.forget()
        raise InputError(
            f"what {without_password(url)} gives is another file: {str(error).partition('. ')[0]}",
            hint=f"try once more; if it stays so, the file was changed or damaged on the way: {_OTHER_WAY}",
            kind="wrong_checksum",
        ) from error
    resuming.forget()


class _Resuming:
    """Fetches a file for pooch by HTTP, piece after piece where the connection breaks off.

    What has arrived has a name that nothing takes for the file itself; beside it stands what the server called the
    file's state when it sent the first byte, empty where it did not say.
    """

    def __init__(self, file: Path, progress: Progress, size: int | None, waits: tuple[float, ...]) -> None:
        self._name, self._progress, self._size, self._waits = file.name, progress, size, waits
        self._partial = file.with_name(f".{file.name}.part")
        self._state = file.with_name(f".{file.name}.part.state")

    def __call__(self, url: str, output_file: str, _pooch: object) -> None:
        """Fetch what is missing, with as many attempts as it takes while something arrives.

        Raises:
            InputError: When the server refuses, or the file has another size.
            RequestException: When the connection breaks off, and nothing arrives any more.
        """
        from requests.exceptions import ChunkedEncodingError, Timeout
        from requests.exceptions import ConnectionError as Broken

        output = Path(output_file)
        output.unlink()  # made by pooch, and left empty by a kill before the end
        failures = 0
        while True:
            before = self._arrived()
            try:
                self._fetch(url)
                break
            except (ChunkedEncodingError, Broken, Timeout) as error:  # what may be over in a moment
                failures = 1 if self._arrived() > before else failures + 1
                if failures > len(self._waits):
                    raise
                self._progress.say(f"{without_password(url)}: {_reason(error, url)}; trying again")
                time.sleep(self._waits[failures - 1])
        size = self._arrived()
        if self._size is not None and size != self._size:
            self.forget()
            message = f"what {without_password(url)} gives is another file: it has {size} bytes, not {self._size}"
            raise InputError(message, hint=_OTHER_WAY, kind="wrong_checksum")
        try:
            output.hardlink_to(self._partial)  # two names, so that a kill in the next moment loses nothing
        except OSError:  # not every file system has two names for one file
            self._partial.replace(output)

    def clean(self) -> None:
        """Remove the second name that a killed process has left."""
        if self._partial.exists():
            for other in self._partial.parent.iterdir():
                if other.name != self._partial.name and other.is_file() and other.samefile(self._partial):
                    other.unlink()

    def forget(self) -> None:
        """Remove what has arrived."""
        self._partial.unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)

    def _arrived(self) -> int:
        """Bytes that have arrived."""
        return self._partial.stat().st_size if self._partial.exists() else 0

    def _fetch(self, url: str) -> None:
        """Make one request, for what is missing where something is there."""
        import requests
        from requests.exceptions import ConnectionError as Broken

        headers = {"Accept-Encoding": "identity"}
        if have := self._arrived():
            headers["Range"] = f"bytes={have}-"
            if state := self._state.read_text(encoding="utf-8") if self._state.exists() else "":
                headers["If-Range"] = state
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUTS) as response:
            sent = response.headers.get("Content-Range", "")
            if response.status_code == requests.codes.requested_range_not_satisfiable and have:
                # There is nothing behind what has arrived: either it is all, or it is of another file.
                if sent.rpartition("/")[2] == str(have):
                    return
            else:
                _require_success(url, response)
                if response.status_code != requests.codes.partial_content:
                    self._begin(response)
                if response.status_code != requests.codes.partial_content or re.match(f"bytes {have}-", sent):
                    self._store(response)
                    return
        self.forget()
        raise Broken("what had arrived is of another file")

    def _begin(self, response: Response) -> None:
        """Start from the first byte."""
        self._partial.unlink(missing_ok=True)
        tag = response.headers.get("ETag", "")
        # A weak tag says that the content means the same, not that its bytes are the same.
        state = response.headers.get("Last-Modified", "") if tag.startswith("W/") or not tag else tag
        self._state.write_text(state, encoding="utf-8")

    def _store(self, response: Response) -> None:
        from requests import ConnectionError as Broken

        have, coming = self._arrived(), response.headers.get("Content-Length")
        total = have + int(coming) if coming is not None else self._size or 0
        self._progress.phase(f"downloading {self._name} (MiB)", -(-total // _MIB))
        self._progress.advance(have // _MIB)
        with self._partial.open("ab") as written:
            for block in response.iter_content(_BLOCK):
                written.write(block)
                self._progress.advance((have + len(block)) // _MIB - have // _MIB)
                have += len(block)
        if coming is not None and have != total:
            raise Broken(f"the connection broke off after {have} of {total} bytes")


def _require_success(url: str, response: Response) -> None:
    from requests import ConnectionError as Broken

    if response.ok:
        return
    status = f"{response.status_code} {response.reason}"
    if response.status_code == 429 or response.status_code >= 500:
        raise Broken(f"the server says {status}")
    raise InputError(
        f"{without_password(url)} cannot be downloaded: the server says {status}",
        hint=f"look whether the page was moved, or asks for a login; {_OTHER_WAY}",
        kind="download_failed",
    )


def _reason(error: BaseException, url: str) -> str:
    """The innermost cause in words: requests wraps it several times."""
    cause = getattr(error, "args", ())
    while cause and isinstance(cause[-1], BaseException):
        error = getattr(cause[-1], "reason", None) or cause[-1]
        cause = error.args if isinstance(error, BaseException) else ()
    text = str(error)
    # What others say of an address with a password may hold a part of it.
    is_secret = without_password(url) != url
    return type(error).__name__ if is_secret else re.sub(r"^<[^>]*>:? ?", "", text) or type(error).__name__
