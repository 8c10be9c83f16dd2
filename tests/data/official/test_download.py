"""Downloads from a real server: gone on with after a break, refused when they are another file, whole or absent."""

from __future__ import annotations

import hashlib
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from petlbench.core.errors import InputError
from petlbench.core.progress import Progress
from petlbench.data.official.download import download
from tests.data.file_server import FileServer, serve

CONTENT = random.Random(0).randbytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()
QUICK = (0.0, 0.0)
BLOCK = 1 << 16  # what has arrived is kept in whole blocks


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "x.zip").write_bytes(CONTENT)
    with serve(folder) as served:
        yield served


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "downloads").mkdir()
    return tmp_path / "downloads" / "x.zip"


def fetch(server: FileServer, target: Path, **known: object) -> None:
    download(server.url("x.zip"), target, Progress(), waits=QUICK, **known)  # type: ignore[arg-type]


def refused(server: FileServer, target: Path, **known: object) -> InputError:
    with pytest.raises(InputError) as caught:
        fetch(server, target, **known)
    assert not target.exists()
    assert server.url("x.zip") in caught.value.message
    assert caught.value.hint
    return caught.value


def stop_half_way(server: FileServer, target: Path, after: int = 16 * BLOCK) -> None:
    """Let a download end early: the connection breaks, and nothing arrives any more."""
    server.breaks = [after, 0, 0, 0]
    assert refused(server, target).kind == "download_failed"
    assert [path.name for path in target.parent.iterdir() if path.stat().st_size > 1000] == [".x.zip.part"]
    server.asked.clear()
    server.breaks.clear()
    server.sent = 0


@pytest.mark.parametrize("known", [{}, {"checksum": f"sha256:{SHA256}"}, {"checksum": f"md5:{MD5}", "size": 3_000_000}])
def test_a_file_arrives_and_nothing_else(server: FileServer, target: Path, known: dict[str, object]) -> None:
    fetch(server, target, **known)
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]


def test_what_is_there_is_not_fetched_again(server: FileServer, target: Path) -> None:
    fetch(server, target)
    fetch(server, target, checksum=f"sha256:{SHA256}")
    assert len(server.asked) == 1


def test_a_file_with_another_checksum_is_fetched_again(server: FileServer, target: Path) -> None:
    target.write_bytes(b"old")
    fetch(server, target, checksum=f"sha256:{SHA256}")
    assert target.read_bytes() == CONTENT


class TestResuming:
    def test_a_break_is_gone_on_with_at_once(self, server: FileServer, target: Path) -> None:
        server.breaks = [16 * BLOCK, 8 * BLOCK]
        fetch(server, target, checksum=f"sha256:{SHA256}")
        assert target.read_bytes() == CONTENT
        assert [wanted for _, wanted in server.asked] == ["", f"bytes={16 * BLOCK}-", f"bytes={24 * BLOCK}-"]
        assert server.sent == len(CONTENT)

    def test_the_next_call_goes_on_where_it_stopped(self, server: FileServer, target: Path) -> None:
        stop_half_way(server, target)
        fetch(server, target, checksum=f"sha256:{SHA256}")
        assert server.asked == [("x.zip", f"bytes={16 * BLOCK}-")]
        assert server.sent == len(CONTENT) - 16 * BLOCK
        assert target.read_bytes() == CONTENT
        assert list(target.parent.iterdir()) == [target]

    def test_a_server_without_ranges_starts_anew(self, server: FileServer, target: Path) -> None:
        stop_half_way(server, target)
        server.ranges = False
        fetch(server, target)
        assert target.read_bytes() == CONTENT

    def test_a_file_that_changed_meanwhile_starts_anew(self, server: FileServer, target: Path) -> None:
        stop_half_way(server, target)
        server.tag = '"second"'
        (server.folder / "x.zip").write_bytes(CONTENT[::-1])
        fetch(server, target)
        assert target.read_bytes() == CONTENT[::-1]

    def test_one_that_had_arrived_whole_is_only_checked(self, server: FileServer, target: Path) -> None:
        stop_half_way(server, target)
        target.with_name(".x.zip.part").write_bytes(CONTENT)
        fetch(server, target, checksum=f"sha256:{SHA256}")
        assert server.sent == 0
        assert target.read_bytes() == CONTENT

    def test_a_part_longer_than_the_file_is_dropped(self, server: FileServer, target: Path) -> None:
        target.with_name(".x.zip.part").write_bytes(CONTENT + b"more")
        fetch(server, target)
        assert target.read_bytes() == CONTENT

    def test_a_busy_server_is_asked_again(self, server: FileServer, target: Path) -> None:
        server.statuses = [503, 429]
        fetch(server, target)
        assert len(server.asked) == 3

    def test_a_killed_process_is_gone_on_from(self, server: FileServer, target: Path) -> None:
        server.breaks = [24 * BLOCK, *[0] * 1000]  # then it waits for more, again and again
        code = (
            "import sys; from pathlib import Path; from petlbench.data.official.download import download;"
            "from petlbench.core.progress import Progress;"
            "download(sys.argv[1], Path(sys.argv[2]), Progress(), waits=(60,))"
        )
        with subprocess.Popen([sys.executable, "-c", code, server.url("x.zip"), str(target)]) as process:
            part = target.with_name(".x.zip.part")
            limit = time.monotonic() + 60
            while not (part.exists() and part.stat().st_size >= 24 * BLOCK):
                assert time.monotonic() < limit
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
        server.breaks.clear()
        server.asked.clear()
        assert not target.exists()
        fetch(server, target, checksum=f"sha256:{SHA256}")
        assert server.asked == [("x.zip", f"bytes={24 * BLOCK}-")]
        assert list(target.parent.iterdir()) == [target]


class TestRefused:
    @pytest.mark.parametrize("kind", ["sha256", "md5"])
    def test_a_wrong_checksum_names_both_and_leaves_nothing(self, server: FileServer, target: Path, kind: str) -> None:
        expected, found = "0" * (64 if kind == "sha256" else 32), SHA256 if kind == "sha256" else MD5
        error = refused(server, target, checksum=f"{kind}:{expected}")
        assert error.kind == "wrong_checksum"
        assert expected in error.message
        assert found in error.message
        assert list(target.parent.iterdir()) == []

    def test_a_wrong_size(self, server: FileServer, target: Path) -> None:
        error = refused(server, target, size=2_999_999)
        assert error.kind == "wrong_checksum"
        assert "3000000 bytes, not 2999999" in error.message
        assert list(target.parent.iterdir()) == []

    @pytest.mark.parametrize(("status", "words"), [(404, "404 Not Found"), (403, "403 Forbidden")])
    def test_a_refusal_is_asked_once(self, server: FileServer, target: Path, status: int, words: str) -> None:
        server.statuses = [status] * 9
        error = refused(server, target)
        assert error.kind == "download_failed"
        assert words in error.message
        assert len(server.asked) == 1

    def test_a_server_that_stays_busy(self, server: FileServer, target: Path) -> None:
        server.statuses = [500] * 9
        assert "500 Internal Server Error" in refused(server, target).message
        assert len(server.asked) == 1 + len(QUICK)

    def test_nobody_there(self, target: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}/x.zip"
        with pytest.raises(InputError, match="refused") as caught:
            download(url, target, Progress(), waits=QUICK)
        assert caught.value.kind == "download_failed"
        assert url in caught.value.message
        assert not target.exists()

    @pytest.mark.parametrize("secret", ["user:s3cret@", "s3cret@", "user:p@s3cret/x@"])
    def test_passwords_of_an_address_are_not_shown(self, target: Path, secret: str) -> None:
        with pytest.raises(InputError) as caught:
            download(f"http://{secret}127.0.0.1:9/x.zip?token=s3cret", target, Progress(), waits=QUICK)
        assert "s3cret" not in caught.value.message + caught.value.hint
        assert "127.0.0.1" in caught.value.message

    def test_what_is_no_address(self, target: Path) -> None:
        with pytest.raises(InputError) as caught:
            download("no-address", target, Progress(), waits=QUICK)
        assert caught.value.kind == "download_failed"


def test_progress_counts_mebibytes_from_where_it_goes_on(server: FileServer, target: Path) -> None:
    stop_half_way(server, target, after=32 * BLOCK)
    told: list[tuple[str, int]] = []

    class Listening(Progress):
        def phase(self, name: str, total: int) -> None:
            told.append((name, total))

        def advance(self, count: int = 1) -> None:
            told.append(("advance", count))

    download(server.url("x.zip"), target, Listening())
    assert told[0] == ("downloading x.zip (MiB)", 3)
    assert sum(count for name, count in told if name == "advance") == 2  # whole ones, of 2.86
