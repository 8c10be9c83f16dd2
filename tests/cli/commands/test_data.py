"""``petlbench data``: the papers' datasets from official files to a run, and what is said on the way."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from petlbench.core.catalog import Catalog
from petlbench.data.card import load_card
from tests.data.file_server import serve
from tests.data.official_files import MORE, RELEASES, archives

Cli = Callable[..., Any]
Refused = Callable[..., dict[str, str]]

RUN = ("--backbone", "petlbench_micro", "--image-size", "32", "--epochs", "1", "--method", "linear", "--device", "cpu")
QUIET = ("--threads", "1", "--tracking-uri", "none", "--json")
DOWNLOADED = {"isic2018", "isic2016", "chncxr"}


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The official files of a dataset as they are downloaded, made once."""
    folder = tmp_path_factory.mktemp("official")

    def made(name: str) -> Path:
        return folder / name if (folder / name).exists() else archives(name, folder / name, images_per_class=6)

    return made


def card_without_checksums(name: str, folder: Path) -> str:
    """The shipped card under its own name; made-up files cannot have the official checksums."""
    text = Catalog().find("dataset", name).file.read_text(encoding="utf-8")
    file = folder / f"{name}.toml"
    file.write_text(re.sub(r"^(sha256|md5|bytes) = .*\n", "", text, flags=re.MULTILINE), encoding="utf-8")
    return str(file)


@pytest.mark.parametrize("name", RELEASES)
def test_prepare_verify_info_and_run(name: str, cli: Cli, official: Callable[[str], Path], here: Path) -> None:
    card = card_without_checksums(name, here)
    with serve(official(name)) as server:
        given = ("--mirror", server.address) if name in DOWNLOADED else ("--from", official(name))
        prepared = cli("data", "prepare", card, *given, "--json")
    assert prepared.status == 0, prepared
    assert prepared.document["images"] > 0
    assert prepared.document["splits"]

    verified = cli("data", "verify", card, "--json")
    assert (verified.status, verified.document["whole"]) == (0, True)
    assert verified.document["images"] == prepared.document["images"]

    info = cli("data", "info", card, "--json").document
    assert info["readable"]
    assert info["images"] == prepared.document["images"]
    assert all(info["images_by_class"].values())
    if info["card"]["task"] != "multilabel":
        assert sum(info["images_by_class"].values()) == info["images"]
    assert info["width"] == {"least": 32, "median": 32, "greatest": 32}
    first = info["prepared"]["splits"][info["card"]["split"]]
    assert info["images_by_split"] == first["counts"]

    done = cli("run", "--dataset", card, *RUN, *QUIET)
    assert done.status == 0, done
    manifest = Path(done.document["artifacts"]["manifest"]).read_bytes()
    assert manifest == (here / "data" / name / first["file"]).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_a_prepared_release_is_audited(name: str, cli: Cli, official: Callable[[str], Path], here: Path) -> None:
    card = card_without_checksums(name, here)
    assert cli("data", "prepare", card, "--from", official(name)).status == 0
    shipped = load_card(Path(card))
    # The baselines are tried for each of several labels, which takes seconds of each: two are enough.
    few = ("--set", f"dataset.labels={','.join(shipped.classes[:2])}") if shipped.task == "multilabel" else ()
    audit = cli("data", "audit", card, *few, "--json")
    assert audit.status == 0, audit
    assert (audit.document["unreadable"], audit.document["groups_on_two_sides"]) == ({}, [])
    assert audit.document["baselines"]


@pytest.mark.slow
def test_a_run_of_few_labels_takes_the_release_s_own_draw(
    cli: Cli, official: Callable[[str], Path], here: Path
) -> None:
    files = official("medfmc_colon")
    assert cli("data", "prepare", "medfmc_colon", "--from", files).status == 0
    done = cli("run", "--dataset", "medfmc_colon", "--shots", "1", "--draw", "1", *RUN, *QUIET)
    assert done.status == 0, done
    assert done.document["data"]["drawn"]["official"]
    lines = (files / "colon" / "colon_1-shot_train_exp2.txt").read_text(encoding="utf-8").splitlines()
    with Path(done.document["artifacts"]["manifest"]).open(encoding="utf-8", newline="") as stream:
        trained = {row["path"].rpartition("/")[2] for row in csv.DictReader(stream) if row["drawn"] == "train"}
    assert trained == {line.rpartition(" ")[0] for line in lines}


@pytest.fixture
def chestmnist(here: Path) -> str:
    """A card of ChestMNIST whose checksum is that of a made-up archive beside it."""
    rng, content = np.random.default_rng(0), {}
    for part, count in (("train", 42), ("val", 14), ("test", 14)):
        labels = (rng.random((count, 14)) < 0.2) | (np.arange(count)[:, None] % 14 == np.arange(14))
        content[f"{part}_images"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        content[f"{part}_labels"] = labels.astype(np.uint8)
    np.savez_compressed(here / "chestmnist.npz", **content)
    digest = hashlib.md5((here / "chestmnist.npz").read_bytes()).hexdigest()
    text = Catalog().find("dataset", "chestmnist").file.read_text(encoding="utf-8")
    card = here / "chestmnist.toml"
    card.write_text(text.replace("02c8a6516a18b556561a56cbdd36c4a8", digest), encoding="utf-8")
    return str(card)


@pytest.mark.slow
def test_chestmnist_from_its_archive_to_a_run(cli: Cli, chestmnist: str, here: Path) -> None:
    prepared = cli("data", "prepare", chestmnist, "--from", here, "--json")
    assert (prepared.status, prepared.document["images"]) == (0, 70)
    assert cli("data", "verify", chestmnist, "--json").document["whole"]
    assert cli("data", "audit", chestmnist, "--json").document["baselines"]
    info = cli("data", "info", chestmnist, "--json").document
    assert info["images"] == 70
    assert len(info["images_by_class"]) == 14
    done = cli("run", "--dataset", chestmnist, *RUN, *QUIET)
    assert done.status == 0, done


class TestPrepare:
    def test_what_it_says(self, cli: Cli, official: Callable[[str], Path], here: Path) -> None:
        done = cli("data", "prepare", "isic2016", "--from", official("isic2016"))
        assert done.status == 0
        manifest = json.loads((here / "data" / "isic2016" / "prepared.json").read_text())["splits"]["official"][
            "sha256"
        ]
        for words in (
            "isic2016 is prepared",
            manifest,
            "train: 12 images, not 900 as the card says",
            "not verified on",
        ):
            assert words in done.out
        again = cli("data", "prepare", "isic2016")
        assert again.status == 0
        assert "was prepared before" in again.out
        assert manifest in again.out

    def test_steps_by_hand_are_lines_of_the_hint(self, cli: Cli, refused: Refused) -> None:
        error = refused("data", "prepare", "messidor2")
        assert error["kind"] == "fetch_by_hand"
        told = cli("data", "prepare", "messidor2")
        assert told.status == 2
        assert re.search(r"^    1\. ", told.err, flags=re.MULTILINE)
        assert "downloads" in told.err

    def test_a_folder_needs_none(self, refused: Refused, pictures: Path) -> None:
        assert refused("data", "prepare", str(pictures))["kind"] == "nothing_to_prepare"

    def test_what_is_wrong_leaves_nothing(self, refused: Refused, tmp_path: Path) -> None:
        source = tmp_path / "mine"
        source.mkdir()
        refused("data", "prepare", "isic2016", "--from", source)
        refused("data", "prepare", "isic2016", "--from", tmp_path / "nowhere")
        refused("data", "prepare", "isic2016", "--from", source, "--set", "dataset.size=3")
        with serve(source) as server:
            refused("data", "prepare", "isic2016", "--mirror", server.address)

    def test_a_run_without_it_says_how(self, refused: Refused) -> None:
        error = refused("run", "--dataset", "isic2016", *RUN)
        assert error["kind"] == "data_missing"
        assert "petlbench data prepare isic2016" in error["hint"]


class TestVerify:
    @pytest.fixture
    def images(self, cli: Cli, official: Callable[[str], Path], here: Path) -> list[Path]:
        assert cli("data", "prepare", "isic2016", "--from", official("isic2016")).status == 0
        return sorted((here / "data" / "isic2016" / "files").rglob("*.jpg"))

    def test_whole(self, cli: Cli, images: list[Path]) -> None:
        told = cli("data", "verify", "isic2016")
        assert told.status == 0
        assert f"all {len(images)} images" in told.out

    def test_twenty_are_named_and_the_rest_counted(self, cli: Cli, images: list[Path]) -> None:
        for image in images[:22]:
            image.unlink()
        told = cli("data", "verify", "isic2016")
        assert told.status == 1
        assert "missing 22" in told.out
        assert sum(image.name in told.out for image in images[:22]) == 20
        assert "and 2 more" in told.out
        document = cli("data", "verify", "isic2016", "--json").document
        assert [fault["kind"] for fault in document["faults"]] == ["missing"] * 22

    def test_not_prepared(self, refused: Refused) -> None:
        assert refused("data", "verify", "isic2016")["kind"] == "data_missing"


class TestInfo:
    def test_a_folder_has_splits_sizes_and_formats(self, cli: Cli, pictures: Path) -> None:
        Image.new("RGB", (64, 48)).save(pictures / "cat" / "large.jpg")
        document = cli("data", "info", pictures, "--json").document
        assert document["width"] == {"least": 32, "median": 32, "greatest": 64}
        assert document["height"]["greatest"] == 48
        assert document["formats"] == {"PNG": 12, "JPEG": 1}
        by_split = document["images_by_split"]
        assert sum(sum(side.values()) for side in by_split.values()) == 13
        assert set(by_split) == {"train", "val", "test"}
        told = cli("data", "info", pictures)
        for words in ("train", "PNG 12, JPEG 1", "median"):
            assert words in told.out

    def test_what_cannot_be_split_is_said(self, cli: Cli, pictures: Path) -> None:
        for image in sorted((pictures / "cat").iterdir())[1:]:
            image.unlink()
        assert "not split as random: the class 'cat' has 1 image" in cli("data", "info", pictures).out

    def test_what_is_not_prepared_yet_is_said_and_so_is_what_is_unverified(self, cli: Cli) -> None:
        told = cli("data", "info", "messidor2")
        assert told.status == 0
        assert "not prepared yet: petlbench data prepare messidor2" in told.out
        assert "not verified on the real files" in told.out
        document = cli("data", "info", "messidor2", "--json").document
        assert (document["readable"], document["prepared"], document["images_by_split"]) == (False, None, None)

    @pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
    def test_a_contact_sheet(self, cli: Cli, pictures: Path, here: Path, suffix: str) -> None:
        file = here / f"sheet{suffix}"
        assert cli("data", "info", pictures, "--figure", file).status == 0
        assert file.stat().st_size > 1000
        if suffix == ".png":
            with Image.open(file) as sheet:
                assert len(sheet.convert("RGB").getcolors(1 << 24) or ()) > 1000

    def test_figures_that_cannot_be_drawn(self, refused: Refused, pictures: Path) -> None:
        assert refused("data", "info", str(pictures), "--figure", "sheet.xyz")["kind"] == "bad_setting"
        assert refused("data", "info", "messidor2", "--figure", "sheet.png")["kind"] == "data_missing"


def test_the_help_imports_nothing_heavy() -> None:
    heavy = ("numpy", "PIL", "pandas", "sklearn", "torch", "requests", "pooch", "matplotlib", "scipy")
    script = f"import sys, petlbench.cli.commands.data; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
