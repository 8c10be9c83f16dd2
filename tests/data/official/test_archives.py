"""Unpacking archives that others made: what is in them comes out, whole, and nothing else."""

from __future__ import annotations

import io
import stat
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petlbench.core.errors import InputError
from petlbench.core.progress import Progress
from petlbench.data.official.archives import JoinedFile, UnpackBounds, archive_parts, is_archive, is_piece, unpack

FILES = {"IMAGES/a.png": b"a" * 1000, "IMAGES/deep/b.png": b"b" * 50, "table.csv": b"image,label\n"}


def write_zip(file: Path, files: Mapping[str, bytes] = FILES) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file


def cut(file: Path, pieces: int) -> list[Path]:
    content, parts = file.read_bytes(), []
    length = -(-len(content) // pieces)
    for number in range(pieces):
        part = file.with_name(f"{file.name}.{number + 1:03d}")
        part.write_bytes(content[number * length : (number + 1) * length])
        parts.append(part)
    file.unlink()
    return parts


def held(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def refused(archive: Path, bounds: UnpackBounds | None = None) -> InputError:
    """Unpack what must be refused; nothing may stay behind, inside the folder or outside it."""
    before = sorted(archive.parent.rglob("*"))
    with pytest.raises(InputError) as caught:
        unpack(archive, archive.parent / "out", Progress(), bounds or UnpackBounds())
    assert sorted(archive.parent.rglob("*")) == before
    assert caught.value.hint
    assert str(archive) in caught.value.message
    return caught.value


class TestWhole:
    def test_every_file_comes_out(self, tmp_path: Path) -> None:
        assert unpack(write_zip(tmp_path / "x.zip"), tmp_path / "out", Progress()) == len(FILES)
        assert held(tmp_path / "out") == FILES
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "x.zip"]

    def test_pieces_are_read_as_one(self, tmp_path: Path) -> None:
        first = cut(write_zip(tmp_path / "x.zip"), 5)[0]
        unpack(first, tmp_path / "out", Progress())
        assert held(tmp_path / "out") == FILES

    def test_what_a_killed_process_left_is_no_obstacle(self, tmp_path: Path) -> None:
        left = tmp_path / ".out.unpacking" / "half.png"
        left.parent.mkdir()
        left.write_bytes(b"half")
        unpack(write_zip(tmp_path / "x.zip"), tmp_path / "out", Progress())
        assert held(tmp_path / "out") == FILES
        assert not left.parent.exists()

    def test_backslashes_are_folders_and_what_a_mac_adds_is_left(self, tmp_path: Path) -> None:
        files = {"a\\b.png": b"b", "__MACOSX/a/._b.png": b"fork"}
        unpack(write_zip(tmp_path / "x.zip", files), tmp_path / "out", Progress())
        assert held(tmp_path / "out") == {"a/b.png": b"b"}

    def test_every_file_is_told(self, tmp_path: Path) -> None:
        told: list[str] = []

        class Listening(Progress):
            def phase(self, name: str, total: int) -> None:
                told.append(f"{name} {total}")

            def advance(self, count: int = 1) -> None:
                told.append("+")

        unpack(write_zip(tmp_path / "x.zip"), tmp_path / "out", Listening())
        assert told == ["unpacking x.zip 3", "+", "+", "+"]


class TestRefused:
    @pytest.mark.parametrize("name", ["../evil.png", "a/../../evil.png", "/evil.png", "C:/evil.png", "..\\evil.png"])
    def test_a_path_outside(self, tmp_path: Path, name: str) -> None:
        folder = tmp_path / "in"
        folder.mkdir()
        error = refused(write_zip(folder / "x.zip", {"good.png": b"", name: b"evil"}))
        assert error.kind == "unsafe_archive"
        assert "evil.png" in error.message
        assert not list(tmp_path.rglob("evil.png"))

    @pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFBLK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
    def test_what_is_no_file(self, tmp_path: Path, kind: int) -> None:
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            entry = zipfile.ZipInfo("images")
            entry.external_attr = (kind | 0o777) << 16
            archive.writestr(entry, "/etc")
        assert refused(tmp_path / "x.zip").kind == "unsafe_archive"

    def test_a_name_twice(self, tmp_path: Path) -> None:
        with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            warnings.simplefilter("ignore")
            archive.writestr("a.png", b"1")
            archive.writestr("a.png", b"2")
        assert "'a.png' stands in it twice" in refused(tmp_path / "x.zip").message

    def test_a_file_that_is_a_folder_too(self, tmp_path: Path) -> None:
        error = refused(write_zip(tmp_path / "x.zip", {"a": b"file", "a/b.png": b"inside"}))
        assert error.kind == "unsafe_archive"

    def test_a_bomb_by_its_ratio(self, tmp_path: Path) -> None:
        error = refused(write_zip(tmp_path / "x.zip", {"zeros": bytes(1 << 20)}), UnpackBounds(free=1 << 16))
        assert error.kind == "archive_too_large"
        assert "times its own size" in error.message

    def test_too_many_bytes_and_too_many_files(self, tmp_path: Path) -> None:
        archive = write_zip(tmp_path / "x.zip")
        assert "1.04 KiB" in refused(archive, UnpackBounds(size=1000)).message
        assert "3 files" in refused(archive, UnpackBounds(count=2)).message

    def test_an_entry_that_declares_less_than_it_has(self, tmp_path: Path) -> None:
        content = bytearray(write_zip(tmp_path / "x.zip", {"zeros": bytes(100_000)}).read_bytes())
        real, small = (100_000).to_bytes(4, "little"), (10).to_bytes(4, "little")
        assert content.count(real) == 2
        (tmp_path / "x.zip").write_bytes(content.replace(real, small))
        assert refused(tmp_path / "x.zip").kind in {"broken_archive", "archive_too_large"}

    def test_an_encrypted_one(self, tmp_path: Path) -> None:
        content = bytearray(write_zip(tmp_path / "x.zip", {"a.png": b"a"}).read_bytes())
        content[content.index(b"PK\x03\x04") + 6] |= 1
        content[content.index(b"PK\x01\x02") + 8] |= 1
        (tmp_path / "x.zip").write_bytes(content)
        error = refused(tmp_path / "x.zip")
        assert error.message.endswith("is encrypted")
        assert "7z" in error.hint

    def test_one_of_several_disks(self, tmp_path: Path) -> None:
        write_zip(tmp_path / "x.zip")
        (tmp_path / "x.z01").write_bytes(b"first disk")
        error = refused(tmp_path / "x.zip")
        assert "x.z01" in error.message
        assert "7z" in error.hint

    def test_a_method_that_python_does_not_know(self, tmp_path: Path) -> None:
        content = bytearray(write_zip(tmp_path / "x.zip", {"a.png": b"a"}).read_bytes())
        content[content.index(b"PK\x03\x04") + 8] = 9
        content[content.index(b"PK\x01\x02") + 10] = 9
        (tmp_path / "x.zip").write_bytes(content)
        error = refused(tmp_path / "x.zip")
        assert error.kind == "unsupported_archive"
        assert "7z" in error.hint

    @pytest.mark.parametrize("left", [0, 10, 300])
    def test_one_that_is_cut_off(self, tmp_path: Path, left: int) -> None:
        archive = write_zip(tmp_path / "x.zip")
        archive.write_bytes(archive.read_bytes()[:left])
        assert refused(archive).kind == "broken_archive"

    def test_damaged_bytes(self, tmp_path: Path) -> None:
        content = bytearray(write_zip(tmp_path / "x.zip", {"a.png": bytes(range(256)) * 4}).read_bytes())
        content[60] ^= 0xFF
        (tmp_path / "x.zip").write_bytes(content)
        assert refused(tmp_path / "x.zip").kind == "broken_archive"

    def test_a_piece_missing_in_the_middle(self, tmp_path: Path) -> None:
        parts = cut(write_zip(tmp_path / "x.zip"), 4)
        parts[2].unlink()
        error = refused_piece(parts[0])
        assert "x.zip.003" in error.message

    def test_the_last_piece_missing(self, tmp_path: Path) -> None:
        parts = cut(write_zip(tmp_path / "x.zip"), 4)
        parts[3].unlink()
        assert "every piece" in refused(parts[0]).hint


def refused_piece(first: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        unpack(first, first.parent / "out", Progress())
    assert caught.value.kind == "missing_part"
    assert not (first.parent / "out").exists()
    return caught.value


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5), st.data())
def test_joined_files_read_like_one(contents: list[bytes], data: st.DataObject) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, content in enumerate(contents):
            files.append(Path(folder) / str(number))
            files[-1].write_bytes(content)
        whole, joined = io.BytesIO(b"".join(contents)), io.BufferedReader(JoinedFile(files), 7)
        with joined:
            for _ in range(5):
                place, count = data.draw(st.integers(0, 120)), data.draw(st.integers(-1, 60))
                assert joined.seek(place) == whole.seek(place)
                assert joined.read(count) == whole.read(count)
            assert joined.seek(0, io.SEEK_END) == whole.seek(0, io.SEEK_END)


def test_names_of_archives_and_pieces(tmp_path: Path) -> None:
    assert [name for name in ("x.zip", "X.ZIP", "x.zip.001", "x.zip.002", "x.csv") if is_archive(name)] == [
        "x.zip",
        "X.ZIP",
        "x.zip.001",
    ]
    assert is_piece("x.zip.010")
    assert not is_piece("x.zip.csv")
    parts = cut(write_zip(tmp_path / "x.zip"), 12)
    assert archive_parts(parts[0]) == tuple(parts)
