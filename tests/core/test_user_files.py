"""Files of other people's: only regular ones of bounded size are read, and no text in them leaves its folder."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petlbench.core.errors import InputError
from petlbench.core.user_files import inside, open_file, read_bytes, read_json, read_text, read_toml, user_path


def _socket(file: Path) -> None:
    previous = Path.cwd()
    os.chdir(file.parent)  # a socket's name must be short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(file.name)
    finally:
        os.chdir(previous)


def _link_to_a_pipe(file: Path) -> None:
    os.mkfifo(file.with_name("pipe"))
    file.symlink_to("pipe")


HOSTILE: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "device": lambda file: file.symlink_to("/dev/zero"),
    "terminal": lambda file: file.symlink_to("/dev/tty"),
    "socket": _socket,
    "folder": lambda file: file.mkdir(),
    "link to itself": lambda file: file.symlink_to(file),
    "link to nothing": lambda file: file.symlink_to("nowhere"),
    "link to a pipe": _link_to_a_pipe,
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_regular_file_is_refused_without_waiting(make: Callable[[Path], object], tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    make(file)

    with pytest.raises(InputError, match=r"the image .*x\.png"):
        open_file(file, what="image")


@pytest.mark.parametrize("name", ["a" * 300, "a\0b", "~nosuchuser/x", "/proc/self/mem"])
def test_impossible_names_are_errors_that_name_them(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        read_bytes(tmp_path / name)


def test_a_link_to_a_regular_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("real")

    assert read_bytes(tmp_path / "link") == b"abc"


def test_a_file_over_the_limit_is_refused_and_one_at_the_limit_is_read(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_bytes(b"12345")

    assert read_bytes(file, limit=5) == b"12345"
    with pytest.raises(InputError, match=r"holds more than 4 bytes"):
        read_bytes(file, limit=4)


def test_files_that_call_themselves_empty_are_bounded_too() -> None:
    with pytest.raises(InputError, match="holds more than"):
        read_bytes(Path("/proc/self/maps"), limit=16)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"[]", b"null", b"3", b'"a"', b"{", b"\xff{}", b"[" * 100_000),
        *(b'{"a": ' + b"9" * 5000 + b"}", b'{"schema": NaN}', b'{"a": [-Infinity]}', b'{"b": {"a": 1, "a": 2}}'),
    ],
)
def test_what_is_no_json_object_is_named_as_damaged(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_bytes(content)

    with pytest.raises(InputError, match=r"the result .*result\.json is damaged") as error:
        read_json(file, what="result")
    assert error.value.kind == "damaged_file"


def test_a_byte_order_mark_is_no_damage(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(file) == {"a": 1}

    file.write_bytes(b"\xef\xbb\xbfa = 1\r\n")
    assert read_toml(file) == {"a": 1}
    assert read_text(file) == "a = 1\r\n"


@pytest.mark.parametrize("part", ["", " ", "..", "../x", "a/../../x", "/etc/passwd", "a\0b", "~/x", "./../x"])
def test_a_path_that_leaves_its_folder_is_refused(part: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="file of the card") as error:
        inside(tmp_path, part, what="file of the card")
    assert error.value.kind == "path_outside"


@given(st.text("ab./\\~ \n", max_size=20))
def test_a_path_is_inside_or_refused(part: str) -> None:
    root = Path("/root/data")
    try:
        path = inside(root, part, what="part")
    except InputError:
        return
    assert os.path.normpath(path) == str(path)
    assert path.is_relative_to(root)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "nothing is named"),
        ("  ", "nothing is named"),
        ("~nosuchuser/x", "there is no such user"),
        ("loop/x", "Too many levels of symbolic links"),
        ("x" * 256, "File name too long"),
        ("http://host/file", "it is an address"),
        ("a\0b", "null"),
    ],
)
def test_what_can_be_no_path_is_refused(
    text: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    with pytest.raises(InputError) as caught:
        user_path(text, what="--output")
    assert caught.value.kind == "bad_path"
    assert caught.value.message.startswith("--output '")
    assert reason in caught.value.message
    assert "\0" not in caught.value.message


def test_a_path_need_not_be_there_and_begins_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/absent/x", what="--output") == tmp_path / "absent" / "x"
    assert user_path("é" * 127, what="--output") == Path("é" * 127)
