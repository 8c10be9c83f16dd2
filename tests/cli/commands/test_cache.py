"""``petlbench cache``, and what a run does where features find no room."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from petlbench.features.locks import USED
from petlbench.features.shard import shards_in
from petlbench.features.source import LiveFeatures
from petlbench.features.store import plan_store
from petlbench.models.method import FeatureSpec, TensorSpec

Cli = Callable[..., Any]
Quick = Callable[..., list[str]]
Refused = Callable[..., dict[str, str]]

IMAGES = 12  # of the fixture `pictures`
KEY = {"feature": "important_tokens", "layers": "0,1,2,5", "ratio": 0.2, "score": "global"}


@pytest.fixture
def stored(here: Path) -> Callable[..., Path]:
    """Put a feature set into ``cache`` in the working folder, used so many seconds after 1970; returns its folder."""

    def store(backbone: str, images: int = 3, used: float = 1e6) -> Path:
        spec = FeatureSpec("fine", KEY, {"keys": TensorSpec((2, 8))})
        made = plan_store(here / "cache", spec, "fp32", {"backbone": backbone, "weights": "w", "image_size": 64}).open()
        names = [f"{backbone}-{number}" for number in range(images)]
        made.fill(names, lambda positions: {"keys": torch.ones(len(positions), 2, 8)})
        assert made.lock is not None
        made.lock.close()
        os.utime(made.folder / USED, (used, used))
        return made.folder

    return store


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make the disk seem to have so many bytes free."""
    return lambda free: monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))


@pytest.fixture
def extracted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect the number of images of every batch that goes through the backbone for its features."""
    counts: list[int] = []
    extract = LiveFeatures.extract

    def counted(source: LiveFeatures, batch: Any) -> Any:
        if len(batch.index):  # prediction is measured on batches of no images in particular
            counts.append(len(batch.index))
        return extract(source, batch)

    monkeypatch.setattr(LiveFeatures, "extract", counted)
    return counts


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(bytes(content))


class TestInfo:
    @pytest.mark.parametrize("folder", ["nowhere", "."])
    def test_an_empty_cache_is_said_to_be_one(self, cli: Cli, here: Path, folder: str) -> None:
        outcome = cli("cache", "info", "--cache-dir", folder)
        assert (outcome.status, outcome.out) == (0, f"{folder}: no features are kept here\n")
        document = cli("cache", "info", "--cache-dir", folder, "--json").document
        assert document == {"folder": folder, "bytes": 0, "sets": [], "leftovers": {"files": 0, "bytes": 0}}
        assert list(here.iterdir()) == []

    def test_the_default_is_the_folder_of_the_environment(
        self, cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PETLBENCH_CACHE", str(here / "mine"))
        assert cli("cache", "info", "--json").document["folder"] == str(here / "mine")

    def test_a_set_is_shown_in_a_row(self, cli: Cli, stored: Callable[..., Path]) -> None:
        key = stored("vit_tiny", images=3).name
        outcome = cli("cache", "info", "--cache-dir", "cache")
        for word in (key[:8], "vit_tiny", "important_tokens, layers 0-2,5, ratio 0.2, score global", "fp32", "no"):
            assert word in outcome.out
        assert "1 feature set, " in outcome.out

    def test_the_document_says_all(self, cli: Cli, stored: Callable[..., Path]) -> None:
        early, late = stored("early"), stored("late", images=5, used=2e6)
        document = cli("cache", "info", "--cache-dir", "cache", "--json").document
        assert [row["key"] for row in document["sets"]] == [late.name, early.name]
        assert document["bytes"] == sum(row["bytes"] for row in document["sets"])
        row = document["sets"][0]
        assert row["features"] == KEY
        assert (row["backbone"], row["image_size"], row["cache_precision"]) == ("late", 64, "fp32")
        assert (row["images"], row["last_used"], row["in_use"]) == (5, "1970-01-24T03:33:20+00:00", False)

    def test_a_set_of_unknown_origin_is_shown(self, cli: Cli, stored: Callable[..., Path]) -> None:
        (stored("tiny") / "about.json").unlink()
        assert cli("cache", "info", "--cache-dir", "cache").status == 0
        assert cli("cache", "info", "--cache-dir", "cache", "--json").document["sets"][0]["backbone"] is None


class TestVerify:
    def test_a_whole_cache_is_good(self, cli: Cli, stored: Callable[..., Path]) -> None:
        stored("a")
        outcome = cli("cache", "verify", "--cache-dir", "cache")
        assert (outcome.status, outcome.out) == (0, "cache: 1 of 1 files are good\n")

    def test_an_empty_one_too(self, cli: Cli) -> None:
        outcome = cli("cache", "verify", "--cache-dir", "nowhere")
        assert (outcome.status, outcome.out) == (0, "nowhere: no features are kept here\n")

    def test_what_is_damaged_is_named_and_goes_unless_it_is_to_stay(
        self, cli: Cli, here: Path, stored: Callable[..., Path]
    ) -> None:
        stored("a")
        (broken,) = shards_in(stored("b"))
        flip(broken)
        kept = cli("cache", "verify", "--keep", "--cache-dir", "cache")
        assert kept.status == 1
        assert "1 of 2 files are good" in kept.out
        assert broken.name in kept.out
        assert broken.exists()
        told = cli("cache", "verify", "--cache-dir", "cache", "--json")
        assert told.status == 0
        file = str(broken.relative_to(here))
        assert told.document == {
            "folder": "cache",
            "good": 1,
            "damaged": [{"file": file, "reason": "the checksum differs", "removed": True}],
            "unreadable": [],
        }
        assert not broken.exists()
        assert cli("cache", "verify", "--cache-dir", "cache").status == 0


class TestPrune:
    def test_the_least_recently_used_goes(self, cli: Cli, stored: Callable[..., Path]) -> None:
        old, new = stored("old", used=1e6), stored("new", used=2e6)
        size = sum(path.stat().st_size for path in old.iterdir())
        words = ("cache", "prune", "--cache-size", f"{size}B", "--cache-dir", "cache", "--json")
        planned = cli(*words, "--dry-run").document
        assert old.exists()
        done = cli(*words).document
        assert done == {**planned, "dry_run": False}
        assert done["removed"] == [{"key": old.name, "bytes": size}]
        assert done["bytes_freed"] == size
        assert (old.exists(), new.exists()) == (False, True)

    @pytest.mark.parametrize("everything", [("--all",), ("--cache-size", "0")])
    def test_everything_goes_on_request(
        self, cli: Cli, stored: Callable[..., Path], everything: tuple[str, ...]
    ) -> None:
        folders = [stored("a"), stored("b")]
        outcome = cli("cache", "prune", *everything, "--cache-dir", "cache")
        assert outcome.status == 0
        assert all(folder.name[:8] in outcome.out for folder in folders)
        assert not any(folder.exists() for folder in folders)

    def test_without_a_size_only_what_killed_processes_left_goes(self, cli: Cli, stored: Callable[..., Path]) -> None:
        folder = stored("a")
        (folder / ".x.safetensors.7.tmp").write_bytes(b"half")
        assert "killed processes left 1 file (4 bytes)" in cli("cache", "info", "--cache-dir", "cache").out
        outcome = cli("cache", "prune", "--cache-dir", "cache")
        assert "--cache-size SIZE says what may stay" in outcome.out
        assert shards_in(folder)
        assert not list(folder.glob(".*"))

    def test_the_environment_says_the_size(
        self, cli: Cli, stored: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PETLBENCH_CACHE_SIZE", "1KB")
        stored("a", images=100)
        assert cli("cache", "prune", "--cache-dir", "cache", "--json").document["bytes_left"] == 0
        assert cli("cache", "prune", "--cache-dir", "cache", "--all").status == 0

    def test_a_size_beside_all_is_refused(self, refused: Refused, stored: Callable[..., Path]) -> None:
        stored("a")
        assert refused("cache", "prune", "--all", "--cache-size", "1GB", "--cache-dir", "cache")["kind"] == "usage"

    @pytest.mark.parametrize("size", ["plenty", "-1", "5 apples", "1e9", ""])
    def test_a_size_that_is_none_is_refused(self, refused: Refused, size: str) -> None:
        error = refused("cache", "prune", "--cache-size", size)
        assert error["kind"] == "usage"
        assert f"'{size}' is no size" in error["message"]
        assert error["hint"] == "see petlbench cache prune --help"


class TestRuns:
    def test_runs_share_what_they_preload(self, cli: Cli, quick: Quick, here: Path, extracted: list[int]) -> None:
        shared = {"cache_dir": "cache", "tracking_uri": "none", "json": True}
        first = cli(*quick(**shared))
        assert sum(extracted) == IMAGES
        extracted.clear()
        other = cli(*quick(**shared, seed="1", split_seed="3"))
        assert extracted == []
        assert [outcome.status for outcome in (first, other)] == [0, 0]
        (row,) = cli("cache", "info", "--cache-dir", "cache", "--json").document["sets"]
        assert row["images"] == IMAGES
        assert (row["backbone"], row["cache_precision"], row["in_use"]) == (
            first.document["config"]["backbone"], "int8", False,
        )  # fmt: skip
        flip(shards_in(here / "cache" / "features" / row["key"])[0])
        mended = cli(*quick(**shared, rerun=True))
        assert sum(extracted) == IMAGES
        assert mended.document["metrics"] == first.document["metrics"]

    def test_a_full_disk_is_found_before_anything_is_written(
        self, refused: Refused, quick: Quick, disk: Callable[[int], None]
    ) -> None:
        disk(1000)
        for arguments in (quick(cache_dir="cache"), quick(cache_dir="cache", dry_run=True)):
            error = refused(*arguments)
            assert error["kind"] == "no_room"
            assert "to cache, and the disk has 1000 bytes free" in error["message"]
            assert "--no-preload" in error["hint"]

    def test_what_is_in_the_cache_needs_no_room(self, cli: Cli, quick: Quick, disk: Callable[[int], None]) -> None:
        shared = {"cache_dir": "cache", "tracking_uri": "none"}
        assert cli(*quick(**shared)).status == 0
        disk(0)
        assert cli(*quick(**shared, seed="1", dry_run=True, json=True)).document["feature_cache"]["free"] == 0
        assert cli(*quick(**shared, seed="1")).status == 0
        assert cli(*quick(**shared, cache_precision="fp32", dry_run=True)).status == 2

    def test_a_form_that_is_asked_for_is_kept_apart_and_told(
        self, cli: Cli, quick: Quick, extracted: list[int]
    ) -> None:
        shared = {"cache_dir": "cache", "tracking_uri": "none", "json": True, "set": "method.token_score=all_heads"}
        shared |= {"measure_inference": "off"}
        usual, tokens = (cli(*quick(method="fpt", **shared, cache_form=form)) for form in ("auto", "tokens"))
        assert [outcome.status for outcome in (usual, tokens)] == [0, 0]
        assert [each.document["config"]["cache_form"] for each in (usual, tokens)] == ["keys_values", "tokens"]
        assert sum(extracted) == 2 * IMAGES
        sets = cli("cache", "info", "--cache-dir", "cache", "--json").document["sets"]
        assert sorted(each["features"].get("form", "keys_values") for each in sets) == ["keys_values", "tokens"]
        assert tokens.document["metrics"]["test"]["auc"] == pytest.approx(
            usual.document["metrics"]["test"]["auc"], abs=0.2
        )

    def test_where_keys_and_values_find_no_room_tokens_are_kept(
        self, cli: Cli, quick: Quick, refused: Refused, disk: Callable[[int], None]
    ) -> None:
        given = quick(
            method="fpt",
            cache_dir="cache",
            dry_run=True,
            json=True,
            set="method.token_score=all_heads",
            image_size="128",
        )
        plan = cli(*given).document
        sizes = plan["feature_cache"]["by_form"]
        assert plan["config"]["cache_form"] == plan["feature_cache"]["form"] == "keys_values"
        assert plan["feature_cache"]["bytes_per_image"] == sizes["keys_values"] > 1.9 * sizes["tokens"]
        disk(plan["feature_cache"]["bytes"] * 3 // 4 + 2**14)  # and what shards take beside
        plan = cli(*given).document
        assert plan["config"]["cache_form"] == plan["feature_cache"]["form"] == "tokens"
        assert refused(*given, "--cache-form", "keys_values")["kind"] == "no_room"
        bench = ["bench", *given[1:], "--seed", "0,1"]
        assert cli(*bench).document["cells"][0]["feature_cache"]["form"] == "tokens"
        disk(1000)
        assert refused(*given)["kind"] == "no_room"

    @pytest.mark.parametrize(
        ("given", "reason"),
        [
            ({"method": "linear"}, "takes no keys and values"),
            ({"method": "fpt", "no_preload": True}, "nothing is preloaded"),
        ],
    )
    def test_a_form_that_cannot_be_had_is_refused(
        self, refused: Refused, quick: Quick, given: dict[str, Any], reason: str
    ) -> None:
        error = refused(*quick(**given, cache_form="tokens"))
        assert error["kind"] == "bad_setting"
        assert f"--cache-form tokens: {reason}" in error["message"].replace("linear, with these settings, ", "")

    def test_a_run_that_preloads_nothing_asks_for_no_room(
        self, cli: Cli, quick: Quick, disk: Callable[[int], None]
    ) -> None:
        disk(0)
        assert cli(*quick(no_preload=True, dry_run=True, cache_size="1KB")).status == 0

    def test_a_cache_that_is_too_small_is_refused(
        self, refused: Refused, quick: Quick, stored: Callable[..., Path]
    ) -> None:
        stored("other")
        for arguments in (quick(cache_dir="cache"), quick(cache_dir="cache", dry_run=True)):
            error = refused(*arguments, "--cache-size", "1KB")
            assert error["kind"] == "cache_too_small"
            assert "--cache-size 1000 bytes" in error["message"]

    def test_others_features_make_room(self, cli: Cli, quick: Quick, stored: Callable[..., Path]) -> None:
        old, new = stored("old", images=400, used=1e6), stored("new", used=2e6)
        bounded = quick(cache_dir="cache", tracking_uri="none", cache_size="30KB")
        assert cli(*bounded).status == 0
        assert (old.exists(), new.exists()) == (False, True)
        assert len(cli("cache", "info", "--cache-dir", "cache", "--json").document["sets"]) == 2

    def test_the_environment_bounds_the_cache(
        self, refused: Refused, quick: Quick, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PETLBENCH_CACHE_SIZE", "1KB")
        assert refused(*quick(cache_dir="cache"))["kind"] == "cache_too_small"

    @pytest.mark.parametrize("size", ["plenty", "0", "-5GB"])
    def test_a_size_that_is_none_is_refused(self, refused: Refused, quick: Quick, size: str) -> None:
        error = refused(*quick(cache_size=size))
        assert error["kind"] == "usage"
        assert "--cache-size" in error["message"]
        assert f"'{size}'" in error["message"]

    def test_a_folder_that_is_a_file_is_refused(self, refused: Refused, quick: Quick, here: Path) -> None:
        (here / "cache").write_text("a file")
        error = refused(*quick(cache_dir="cache"))
        assert error["kind"] == "not_writable"
        assert "--cache-dir" in error["hint"]
