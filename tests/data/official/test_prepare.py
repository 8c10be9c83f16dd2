"""From made-up official files to prepared datasets: downloaded, unpacked, checked, split; or one error and nothing."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.core.progress import Progress
from petlbench.data.card import load_card
from petlbench.data.dataset import open_dataset
from petlbench.data.manifest import manifest_digest, manifest_of
from petlbench.data.official.prepare import Preparation, PrepareOptions, prepare_dataset
from petlbench.data.official.read import read_official
from petlbench.data.official.verify import verify_dataset
from petlbench.data.splits import SplitScheme, assign_splits, shared_groups
from petlbench.data.tasks.base import task_of
from tests.data.drawn_files import draw
from tests.data.file_server import serve
from tests.data.official_files import RELEASES, archives, make

FEW = 6
Prepare = Callable[..., Preparation]


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The official files of a dataset as they are downloaded, made once."""
    folder = tmp_path_factory.mktemp("official")

    def made(name: str) -> Path:
        return folder / name if (folder / name).exists() else archives(name, folder / name, images_per_class=FEW)

    return made


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def prepare(data_root: Path) -> Prepare:
    def call(reference: str | Path, source: Path | None = None, **options: Any) -> Preparation:
        settings, progress = options.pop("settings", {}), options.pop("progress", Progress())
        taken = PrepareOptions(source, **options)
        return prepare_dataset(str(reference), Catalog(), data_root, settings, taken, workers=2, progress=progress)

    return call


@pytest.fixture
def refused(prepare: Prepare, data_root: Path) -> Callable[..., InputError]:
    """Prepare what must be refused; the dataset is then not prepared, and nothing is left that looks so."""

    def call(reference: str | Path, source: Path | None = None, **options: Any) -> InputError:
        with pytest.raises(InputError) as caught:
            prepare(reference, source, **options)
        left = {path.name for path in data_root.glob("*/*")}
        assert left <= {"files", "downloads"}, left
        assert caught.value.exit_status == 2
        assert caught.value.message
        assert "\n" not in caught.value.message
        return caught.value

    return call


def copy_of_card(name: str, folder: Path, **changed: str) -> Path:
    """The shipped card under its own name, without the checksums that made-up files cannot have."""
    text = (Catalog().find("dataset", name).file).read_text(encoding="utf-8")
    text = re.sub(r"^(sha256|md5|bytes) = .*\n", "", text, flags=re.MULTILINE)
    for old, new in changed.items():
        text = re.sub(rf"^{old} = .*$", f"{old} = {new}", text, count=1, flags=re.MULTILINE)
    file = folder / f"{name}.toml"
    file.write_text(text, encoding="utf-8")
    return file


def reference(name: str, folder: Path) -> str:
    return str(copy_of_card(name, folder)) if name == "isic2018" else name


class TestEveryDataset:
    @pytest.mark.parametrize("name", RELEASES)
    def test_from_its_archives_to_its_manifests(
        self, name: str, official: Callable[[str], Path], prepare: Prepare, data_root: Path, tmp_path: Path
    ) -> None:
        card = reference(name, tmp_path)
        done = prepare(card, official(name))
        task = task_of(load_card_of(name), Catalog())
        expected = read_official(load_card_of(name), make_again(name, tmp_path), name, task.labels)
        assert done.new
        assert done.images == len(expected.records) > 0
        assert done.prepared is not None
        assert done.prepared.left_out.keys() == expected.left_out.keys()
        assert done.prepared.differences  # made-up files are fewer
        assert verify_dataset(card, Catalog(), data_root, 2, Progress()).faults == []

        dataset = open_dataset(card, catalog=Catalog(), data_root=data_root, settings={})
        assert len(dataset.records) == len(expected.records)
        for record, same in zip(dataset.records, expected.records, strict=True):
            assert same.path.endswith(record.path)
            assert (record.label, record.split) == (same.label, same.split)
        assert len(done.prepared.splits) == (1 if dataset.card.split == "official" else 5)
        for scheme, written in done.prepared.splits.items():
            # As a run does it.
            parsed = SplitScheme.parse(scheme)
            sides = assign_splits(dataset.records, parsed, 0, classes=dataset.classes, strata=task.strata)
            content = (done.folder / written.file).read_bytes()
            digests = [dataset.content_hash(record) for record in dataset.records]
            assert manifest_digest(manifest_of(dataset, sides, digests)) == written.sha256
            assert hashlib.sha256(content).hexdigest() == written.sha256
            assert shared_groups(dataset.records, sides) == []

    @pytest.mark.parametrize("name", ["isic2018", "isic2016", "chncxr"])
    def test_downloaded(self, name: str, official: Callable[[str], Path], prepare: Prepare, tmp_path: Path) -> None:
        card = reference(name, tmp_path)
        with serve(official(name)) as server:
            done = prepare(card, mirror=server.address)
            assert {asked for asked, _ in server.asked} == {file.name for file in load_card_of(name).files}
        assert done.prepared is not None
        assert done.prepared.root.startswith("files")
        assert done.images > 0


def load_card_of(name: str) -> Any:
    return load_card(Catalog().find("dataset", name).file)


def make_again(name: str, folder: Path) -> Path:
    return make(name, folder / "expected", images_per_class=FEW)


class TestOneManifestForAll:
    def test_however_the_files_were_given(self, prepare: Prepare, data_root: Path, tmp_path: Path) -> None:
        """As archives, unpacked, as a folder above or as the release's outermost folder."""
        packed = archives("chncxr", tmp_path / "packed", images_per_class=FEW)
        unpacked = make("chncxr", tmp_path / "unpacked", images_per_class=FEW)
        digests = set()
        for place in (packed, unpacked, unpacked / "ChinaSet_AllFiles", unpacked / "ChinaSet_AllFiles" / "CXR_png"):
            done = prepare("chncxr", place)
            assert done.prepared is not None
            digests.add(tuple(split.sha256 for split in done.prepared.splits.values()))
            assert verify_dataset("chncxr", Catalog(), data_root, 1, Progress()).faults == []
            shutil.rmtree(data_root)
        assert len(digests) == 1

    def test_unpacked_images_stay_where_they_are(self, prepare: Prepare, tmp_path: Path) -> None:
        source = make("isic2016", tmp_path / "mine", images_per_class=FEW)
        before = sorted(source.rglob("*"))
        done = prepare("isic2016", source)
        assert done.prepared is not None
        assert Path(done.prepared.root) == source
        assert sorted(source.rglob("*")) == before
        assert not (done.folder / "files").exists()


class TestAgain:
    def test_prepared_before(self, prepare: Prepare, official: Callable[[str], Path]) -> None:
        first = prepare("isic2016", official("isic2016"))
        stamp = (first.folder / "prepared.json").stat().st_mtime_ns
        second = prepare("isic2016")
        assert (second.new, second.prepared) == (False, first.prepared)
        assert (first.folder / "prepared.json").stat().st_mtime_ns == stamp

    def test_anew_from_what_is_unpacked(self, prepare: Prepare, official: Callable[[str], Path]) -> None:
        first = prepare("isic2016", official("isic2016"))
        again = prepare("isic2016", official("isic2016"), again=True)
        assert again.new
        assert again.prepared == first.prepared

    def test_anew_mends_what_was_damaged(self, prepare: Prepare, official: Callable[[str], Path]) -> None:
        done = prepare("isic2016", official("isic2016"))
        next((done.folder / "files").rglob("*.jpg")).write_bytes(b"")
        assert prepare("isic2016", official("isic2016"), again=True).prepared == done.prepared

    def test_anew_without_the_archives(
        self, prepare: Prepare, official: Callable[[str], Path], data_root: Path
    ) -> None:
        first = prepare("isic2016", official("isic2016"))
        assert prepare("isic2016", again=True).prepared == first.prepared

    def test_anew_from_where_the_images_were_left(self, prepare: Prepare, tmp_path: Path) -> None:
        source = make("cmmd", tmp_path / "mine", images_per_class=FEW)
        first = prepare("cmmd", source)
        assert prepare("cmmd", again=True).prepared == first.prepared
        assert first.prepared is not None
        assert first.prepared.source == str(source)

    def test_another_version_of_the_card(self, prepare: Prepare, tmp_path: Path) -> None:
        source = make("isic2016", tmp_path / "mine", images_per_class=FEW)
        prepare(copy_of_card("isic2016", tmp_path), source)
        card = copy_of_card("isic2016", tmp_path, version="7")
        with pytest.raises(InputError, match="version 1 of its card, which is now at version 7") as caught:
            prepare(card, source)
        assert "--again" in caught.value.hint
        again = prepare(card, source, again=True)
        assert again.prepared is not None
        assert again.prepared.card_version == 7


class TestByHand:
    def test_steps_are_numbered_and_name_address_and_folder(self, refused: Any, data_root: Path) -> None:
        error = refused("messidor2")
        assert error.kind == "fetch_by_hand"
        assert not data_root.exists()
        steps = re.findall(r"^ +(\d)\. (.*)$", error.hint, flags=re.MULTILINE)
        assert [number for number, _ in steps] == [str(number + 1) for number in range(len(steps))]
        assert "https://www.adcis.net/en/third-party/messidor2/" in error.hint
        assert str(data_root / "messidor2" / "downloads") in error.hint
        assert "IMAGES.zip.001" in error.hint
        assert steps[-1][1] == "petlbench data prepare messidor2"

    def test_followed_they_work(self, prepare: Prepare, official: Callable[[str], Path], data_root: Path) -> None:
        shutil.copytree(official("covid"), data_root / "covid" / "downloads")
        assert prepare("covid").images == 3 * FEW

    def test_a_part_that_is_missing_is_named(
        self, refused: Any, official: Callable[[str], Path], tmp_path: Path
    ) -> None:
        shutil.copytree(official("messidor2"), tmp_path / "some")
        (tmp_path / "some" / "IMAGES.zip.003").unlink()
        assert "IMAGES.zip.003 not found" in refused("messidor2", tmp_path / "some").message

    def test_an_archive_of_another_name(self, refused: Any, official: Callable[[str], Path], tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        shutil.copy(official("covid") / "archive.zip", tmp_path / "mine" / "covid-cxr.zip")
        error = refused("covid", tmp_path / "mine")
        assert error.kind == "unknown_archive"
        assert "holds covid-cxr.zip; the card of 'covid' knows archive.zip" in error.message

    def test_a_folder_that_is_not_there(self, refused: Any, tmp_path: Path) -> None:
        error = refused("messidor2", tmp_path / "nowhere")
        assert error.kind == "no_source"

    def test_nothing_to_prepare(self, refused: Any) -> None:
        assert refused("digits").kind == "nothing_to_prepare"


class TestDownloads:
    def test_an_interrupted_one_resumes(
        self, prepare: Prepare, official: Callable[[str], Path], data_root: Path
    ) -> None:
        with serve(official("chncxr")) as server:
            archive = official("chncxr") / "ChinaSet_AllFiles.zip"
            part = data_root / "chncxr" / "downloads" / f".{archive.name}.part"
            part.parent.mkdir(parents=True)
            part.write_bytes(archive.read_bytes()[:2000])
            done = prepare("chncxr", mirror=server.address)
            assert server.asked[0] == (archive.name, "bytes=2000-")
        assert done.images == 2 * FEW
        assert sorted(path.name for path in part.parent.iterdir()) == [archive.name]

    def test_a_wrong_checksum(
        self, refused: Any, official: Callable[[str], Path], tmp_path: Path, data_root: Path
    ) -> None:
        card = Path(copy_of_card("chncxr", tmp_path))
        card.write_text(card.read_text() + f'sha256 = "{"0" * 64}"\n')
        found = hashlib.sha256((official("chncxr") / "ChinaSet_AllFiles.zip").read_bytes()).hexdigest()
        with serve(official("chncxr")) as server:
            error = refused(card, mirror=server.address)
        assert error.kind == "wrong_checksum"
        assert "0" * 64 in error.message
        assert found in error.message
        assert [path for path in data_root.rglob("*") if path.is_file()] == []

    def test_a_wrong_checksum_of_the_users_own_file(self, refused: Any, official: Callable[[str], Path]) -> None:
        error = refused("isic2018", official("isic2018"))  # its lesion groupings are made up
        assert error.kind == "wrong_checksum"
        assert "ISIC2018_Task3_Training_LesionGroupings.csv" in error.message
        assert "492996 bytes" in error.message

    def test_a_mirror_without_the_file(self, refused: Any, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with serve(tmp_path / "empty") as server:
            error = refused("chncxr", mirror=server.address)
        assert error.kind == "download_failed"
        assert "404" in error.message


class TestWrongFiles:
    """One clear error each, and nothing half-prepared."""

    @pytest.fixture
    def isic2016(self, tmp_path: Path) -> Path:
        return make("isic2016", tmp_path / "mine", images_per_class=FEW)

    def test_a_missing_column(self, refused: Any, tmp_path: Path) -> None:
        source = make("messidor2", tmp_path / "mine", images_per_class=FEW)
        table = source / "messidor_data.csv"
        table.write_text(table.read_text().replace("adjudicated_dr_grade", "grade"))
        error = refused("messidor2", source)
        assert "adjudicated_dr_grade" in error.message
        assert "messidor_data.csv" in error.message

    def test_an_unknown_label(self, refused: Any, isic2016: Path) -> None:
        table = isic2016 / "ISBI2016_ISIC_Part3_Training_GroundTruth.csv"
        table.write_text(table.read_text().replace("malignant", "unclear", 1))
        error = refused("isic2016", isic2016)
        assert "'unclear'" in error.message
        assert str(table) in error.message

    def test_an_image_that_is_named_and_absent(self, refused: Any, isic2016: Path) -> None:
        image = sorted(isic2016.rglob("*.jpg"))[0]
        image.unlink()
        assert image.stem in refused("isic2016", isic2016).message

    def test_a_zip_that_leads_out(self, refused: Any, official: Callable[[str], Path], tmp_path: Path) -> None:
        shutil.copytree(official("chncxr"), tmp_path / "mine")
        with zipfile.ZipFile(tmp_path / "mine" / "ChinaSet_AllFiles.zip", "a") as archive:
            archive.writestr("../../evil.png", b"evil")
        error = refused("chncxr", tmp_path / "mine")
        assert error.kind == "unsafe_archive"
        assert not list(tmp_path.rglob("evil.png"))

    def test_an_image_that_cannot_be_read(self, refused: Any, prepare: Prepare, isic2016: Path) -> None:
        image = sorted(isic2016.rglob("*.jpg"))[0]
        image.write_bytes(image.read_bytes()[:300])
        error = refused("isic2016", isic2016)
        assert image.name in error.message
        assert "--skip-corrupt" in error.hint
        done = prepare("isic2016", isic2016, skip_corrupt=True)
        assert done.prepared is not None
        assert len(done.prepared.skipped) == 1
        assert image.name in done.prepared.skipped[0]
        assert done.images == len(list(isic2016.rglob("*.jpg"))) - 1
        assert any(image.name in note for note in done.prepared.notes())

    def test_a_data_folder_that_cannot_be_written_to(self, refused: Any, isic2016: Path, data_root: Path) -> None:
        data_root.write_text("a file")
        assert refused("isic2016", isic2016).kind == "not_writable"

    def test_another_process_is_at_it(self, prepare: Prepare, isic2016: Path, data_root: Path) -> None:
        (data_root / "isic2016").mkdir(parents=True)
        with FileLock(data_root / "isic2016" / ".lock"), pytest.raises(InputError) as caught:
            prepare("isic2016", isic2016)
        assert caught.value.kind == "busy"


def test_near_duplicates_are_groups_where_nothing_else_is(prepare: Prepare, tmp_path: Path, data_root: Path) -> None:
    source = make("covid", tmp_path / "mine", images_per_class=10)
    first = source / "COVID_IEEE" / "covid" / "image (0).png"
    shutil.copy(first, first.with_name("copy.png"))
    done = prepare("covid", source)
    assert done.prepared is not None
    pair = ["covid/copy.png", "covid/image (0).png"]
    assert pair in [list(cluster) for cluster in done.prepared.clusters or ()]
    assert any("near duplicates" in note for note in done.prepared.notes())
    dataset = open_dataset("covid", catalog=Catalog(), data_root=data_root, settings={})
    groups = {record.image_id: record.group for record in dataset.records}
    assert groups[pair[0]] == groups[pair[1]] is not None


@pytest.mark.parametrize("moment", ["checking images", "unpacking"])
def test_killed_at_any_moment_the_next_call_makes_it_whole(
    moment: str, official: Callable[[str], Path], prepare: Prepare, data_root: Path, tmp_path: Path
) -> None:
    code = """
import sys, time
from pathlib import Path
from petlbench.core.catalog import Catalog
from petlbench.data.official.prepare import PrepareOptions, prepare_dataset
from petlbench.core.progress import Progress

class Slow(Progress):
    def phase(self, name, total):
        self.name, self.done = name, 0
    def advance(self, count=1):
        self.done += 1
        if self.name.startswith(sys.argv[3]) and self.done == 3:
            print("now", flush=True)
            time.sleep(60)

prepare_dataset("isic2016", Catalog(), Path(sys.argv[2]), {}, PrepareOptions(Path(sys.argv[1])),
    workers=1, progress=Slow())
"""
    arguments = [sys.executable, "-c", code, str(official("isic2016")), str(data_root), moment]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    with pytest.raises(InputError, match="not prepared"):
        open_dataset("isic2016", catalog=Catalog(), data_root=data_root, settings={})
    done = prepare("isic2016", official("isic2016"))
    assert done.new
    assert verify_dataset("isic2016", Catalog(), data_root, 1, Progress()).faults == []
    assert {path.name for path in done.folder.iterdir()} == {"files", "images.csv", "prepared.json", "splits"}


class TestMedMnist:
    @pytest.fixture
    def archive(self, tmp_path: Path) -> Path:
        arrays: dict[str, Any] = {}
        for split, count in (("train", 16), ("val", 4), ("test", 4)):
            arrays[f"{split}_images"] = np.random.default_rng(0).integers(0, 256, (count, 28, 28), dtype=np.uint8)
            arrays[f"{split}_labels"] = np.arange(count)[:, None] % 2
        (tmp_path / "served").mkdir()
        np.savez(tmp_path / "served" / "breastmnist.npz", **arrays)
        return tmp_path / "served" / "breastmnist.npz"

    def test_its_file_is_fetched_and_checked(
        self, prepare: Prepare, archive: Path, tmp_path: Path, data_root: Path
    ) -> None:
        with serve(archive.parent) as server:
            done = prepare(copy_of_card("breastmnist", tmp_path), mirror=server.address)
        assert (done.images, done.prepared) == (24, None)
        assert list(done.files) == [data_root / "breastmnist" / "breastmnist.npz"]
        # The made-up file is not the official one, which the shipped card knows by its checksum.
        found = verify_dataset("breastmnist", Catalog(), data_root, 1, Progress())
        assert (found.images, found.what, [fault.kind for fault in found.faults]) == (1, "files", ["checksum"])

    def test_another_file_is_refused(self, refused: Any, archive: Path) -> None:
        with serve(archive.parent) as server:
            error = refused("breastmnist", mirror=server.address)
        assert error.kind == "wrong_checksum"
        error = refused("breastmnist", archive.parent)
        assert "md5" in error.message

    def test_another_size_is_another_file(self, refused: Any, archive: Path) -> None:
        with serve(archive.parent) as server:
            error = refused("breastmnist", mirror=server.address, settings={"size": "64"})
        assert "breastmnist_64.npz" in error.message


def test_prepared_json_is_plain(prepare: Prepare, official: Callable[[str], Path]) -> None:
    done = prepare("isic2016", official("isic2016"))
    said = json.loads((done.folder / "prepared.json").read_text())
    assert said["schema"] == 1
    assert said["counts"] == {"benign": FEW + 6, "malignant": FEW + 6}
    assert said["splits"]["official"]["file"] == "splits/official.csv"
    assert (done.folder / "splits" / "official.csv").is_file()
    draw(done.folder / "files" / "stray.jpg", 0, 0)  # a file that no table knows changes nothing
    assert prepare("isic2016").prepared == done.prepared
