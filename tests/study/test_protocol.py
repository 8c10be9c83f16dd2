"""Protocols and recipes: files that say what runs of a table have in common, and what a user's own words change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import petlbench as pb
from petlbench.cli.app import run_command
from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig, TrainingConfig
from petlbench.core.errors import InputError
from petlbench.models.method import load_method
from petlbench.report.selection import check_alike, choose
from petlbench.results.result import Origin, read_result
from petlbench.results.table import load_results
from petlbench.study.protocol import load_protocol
from petlbench.study.recipe import recipe_settings

TINY: dict[str, Any] = {"backbone": "petlbench_micro", "threads": 1, "tracking_uri": "none", "progress": False}
PROTOCOL = """
title = "Mine"
seeds = [7, 8]
sweep = "mine"
[request]
image_size = 32
train_on = "train+val"
[request.training]
epochs = 2
batch_size = 8
lr = 0.5
select = "last"
augment = "none"
"""
SWEEP = """
title = "Mine"
sampler = "grid"
objective = "val.accuracy"
ties = "smaller_lr"
[space.training]
lr = [1e-3, 1e-2]
"""
RECIPE = """
title = "Mine"
source = "nowhere"
[training]
lr = 0.25
weight_decay = 0.5
[datasets.one.training]
batch_size = 4
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A catalogue with a protocol, its search, and a recipe of one method for one dataset."""
    folder = tmp_path / "mine"
    for kind, name, text in (
        ("protocols", "mine", PROTOCOL),
        ("sweeps", "mine", SWEEP),
        ("recipes", "linear.authors", RECIPE),
    ):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        (folder / kind / f"{name}.toml").write_text(text)
    return folder


@pytest.fixture
def options(tmp_path: Path, mine: Path) -> dict[str, Any]:
    return {**TINY, "output": tmp_path / "results", "cache_dir": tmp_path / "cache", "catalog": mine}


def config(values: Mapping[str, Any], **changed: Any) -> RunConfig:
    """A run under a protocol."""
    training = TrainingConfig.model_validate({"lr": 1, "weight_decay": 0, **values["training"]})
    fields = {name: value for name, value in values.items() if name != "training"}
    return RunConfig.model_construct(**{**fields, "training": training, **changed})


class TestCards:
    def test_the_published_protocol_is_what_papers_write_of_it(self) -> None:
        card = load_protocol(Catalog(), "published")
        training = config(card.request).training
        assert (card.seeds, card.sweep) == ((42, 44, 82, 100, 800), "published")
        assert card.common == {"image_size": 224, "train_on": "train+val"}
        assert (training.optimizer, training.lr, training.weight_decay) == ("adamw", 1e-3, 1e-4)
        assert (training.epochs, training.warmup_epochs, training.warmup_lr, training.min_lr) == (100, 10, 1e-6, 1e-5)
        assert (training.batch_size, training.drop_last, training.drop_path) == (64, True, 0.1)
        assert (training.schedule, training.augment, training.select) == ("cosine", "none", "last")

    def test_the_fair_protocol_chooses_on_validation_alone(self) -> None:
        card = load_protocol(Catalog(), "fair")
        assert (card.seeds, card.sweep, card.common["train_on"]) == ((0, 1, 2, 3, 4), "fair", "train")
        assert card.request["training"] == {"select": "score"}

    def test_what_differs_from_a_protocol_is_named_but_for_what_was_searched(self) -> None:
        card = load_protocol(Catalog(), "published")
        assert card.deviations(config(card.request)) == []
        training = {**card.request["training"], "lr": 0.1, "epochs": 5}
        other = config({**card.request, "training": training}, image_size=32)
        assert card.deviations(other) == ["image_size", "training.lr", "training.epochs"]
        assert card.deviations(other, {"lr"}) == ["image_size", "training.epochs"]

    @pytest.mark.parametrize(
        ("old", "new", "named"),
        [
            ("image_size = 32", "image_sise = 32", "image_sise"),
            ("image_size = 32", 'method = "lora"', "method"),
            ("epochs = 2", "epochs = 0", "epochs"),
            ("seeds = [7, 8]", "seeds = []", "seeds"),
            ('sweep = "mine"', 'sweep = "lr_wdd"', "lr_wd"),
            ("[request]\n", "best = 1\n[request]\n", "best"),
        ],
    )
    def test_a_wrong_file_is_refused_by_name(self, mine: Path, old: str, new: str, named: str) -> None:
        assert old in PROTOCOL
        (mine / "protocols" / "mine.toml").write_text(PROTOCOL.replace(old, new))
        with pytest.raises(InputError) as caught:
            load_protocol(Catalog([mine]), "mine")
        assert named in f"{caught.value.message} {caught.value.hint}"

    def test_a_protocol_is_named_by_its_path_too_and_is_then_another_than_the_shipped_one(self, mine: Path) -> None:
        file = mine / "published.toml"
        file.write_text(PROTOCOL)
        assert load_protocol(Catalog([mine]), str(file)).name == str(file.resolve())
        with pytest.raises(InputError, match="unknown protocol 'publishd'"):
            load_protocol(Catalog(), "publishd")
        with pytest.raises(InputError, match="does not exist"):
            load_protocol(Catalog(), str(mine / "gone.toml"))

    @pytest.mark.parametrize("name", sorted(Catalog().entries("recipe")))
    def test_a_shipped_recipe_is_of_settings_that_its_method_has(self, name: str) -> None:
        catalog, (method, _, recipe) = Catalog(), name.partition(".")
        kind, card = load_method(catalog.find("method", method)), catalog.find("recipe", name).card
        tuned = [recipe_settings(catalog, recipe, method, dataset) for dataset in card.get("datasets", ["any"])]
        assert [each.refusal for each in tuned] == [""] * len(tuned)
        for each in tuned:
            kind.from_settings(each.method)
            TrainingConfig.model_validate({"lr": 1, "weight_decay": 0, **each.training})
        if rates := kind.defaults.published_lr:
            assert {name: own["training"]["lr"] for name, own in card["datasets"].items()} == rates
        assert set(card.get("datasets", {})) <= set(catalog.entries("dataset"))
        if "vtab1k/cifar" in card.get("datasets", {}):
            assert len(card["datasets"]) == 19


class TestRuns:
    def test_a_run_takes_the_fields_and_what_is_given_goes_before_them(
        self, images: Path, options: dict[str, Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        result = pb.run("linear", images / "one", protocol="mine", lr=0.1, batch_size=4, **options)
        assert result.origin == Origin(protocol="mine", deviations=["training.batch_size", "training.lr", "sweep"])
        training = result.config.training
        assert (training.epochs, training.lr, training.select, result.config.seed) == (2, 0.1, "last", 7)
        assert result.config.train_on == "train+val"
        [stored] = load_results(options["output"]).runs
        assert stored.protocol == "mine but training.batch_size, training.lr, sweep"
        assert read_result(options["output"] / result.run_id).origin == result.origin
        command = ["run", "--method", "linear", "--dataset", str(images / "one"), "--protocol", "mine", "--lr", "0.1"]
        command += ["--batch-size", "4", "--backbone", "petlbench_micro", "--threads", "1", "--tracking-uri", "none"]
        assert run_command([*command, "--output", str(options["output"]), "--catalog", str(options["catalog"])]) == 0
        assert "mine but training.batch_size, training.lr, sweep" in " ".join(capsys.readouterr().out.split())

    def test_a_run_file_may_name_a_protocol(self, images: Path, options: dict[str, Any], tmp_path: Path) -> None:
        (tmp_path / "run.toml").write_text(
            f'method = "linear"\ndataset = "{images / "one"}"\nprotocol = "mine"\nepochs = 1'
        )
        plan = pb.dry_run(config=tmp_path / "run.toml", **{**options, "progress": None})
        assert (plan.config.training.epochs, plan.config.training.lr, plan.config.train_on) == (1, 0.5, "train+val")

    def test_a_study_searches_first_on_the_training_split_and_then_refits_the_winner(
        self, images: Path, options: dict[str, Any]
    ) -> None:
        datasets = [str(images / name) for name in ("one", "two")]
        study = pb.bench(["linear", "bitfit"], datasets, protocol="mine", study="s", **options)
        assert [run.status for run in study.runs] == ["finished"] * 8
        trials = [read_result(file.parent) for file in (options["output"] / "trials").glob("*/result.json")]
        assert len(trials) == 8
        for trial in trials:
            assert (trial.config.train_on, set(trial.metrics), trial.best_epoch) == ("train", {"val"}, 2)
            assert trial.config.training.lr in {1e-3, 1e-2}
        for run in study.runs:
            alike = [t for t in trials if (t.config.method, t.config.dataset) == (run.method, run.config["dataset"])]
            # Of equal ones that with the smaller rate.
            best = min(alike, key=lambda trial: (-trial.metrics["val"]["accuracy"], trial.config.training.lr))
            assert run.value("training.lr") == best.config.training.lr
            assert (run.value("train_on"), set(run.document["metrics"])) == ("train+val", {"test"})
            assert (run.protocol, run.document["origin"]["sweep"]) == ("mine", "mine")
        assert {run.seed for run in study.runs} == {7, 8}
        reads = (options["output"] / "test_reads.jsonl").read_text().splitlines()
        assert sorted(json.loads(line)["run_id"] for line in reads) == sorted(run.run_id for run in study.runs)
        again = pb.bench(["linear", "bitfit"], datasets, protocol="mine", study="s", **options)
        assert {run.run_id for run in again.runs} == {run.run_id for run in study.runs}
        assert len((options["output"] / "test_reads.jsonl").read_text().splitlines()) == 8, "nothing is done again"

    def test_a_run_that_stands_counts_for_the_protocol_of_the_study_that_asks_for_it(
        self, images: Path, options: dict[str, Any]
    ) -> None:
        given = {"image_size": 32, "epochs": 2, "batch_size": 8, "augment": "none", "train_on": "train+val"}
        by_hand = [pb.run("linear", images / "one", seed=7, lr=rate, **given, **options) for rate in (1e-3, 1e-2)]
        assert [result.origin for result in by_hand] == [None, None]
        study = pb.bench("linear", images / "one", [7], protocol="mine", study="s", **options)
        [run] = study.runs
        assert run.run_id in {result.run_id for result in by_hand}
        assert run.protocol == "mine"

    def test_no_table_mixes_protocols(self, images: Path, options: dict[str, Any]) -> None:
        for given in ({"protocol": "mine"}, {"protocol": "mine", "batch_size": 4}):
            pb.run("linear", images / "one", **given, **options)
        runs = load_results(options["output"]).runs
        with pytest.raises(InputError, match="protocol=mine but sweep"):
            check_alike(runs, but=["training.batch_size"])
        assert len(choose(runs, "any", {"protocol": "mine but sweep"}, "here")) == 1

    def test_a_sweep_under_a_protocol_refits_on_its_seeds(self, images: Path, options: dict[str, Any]) -> None:
        [outcome] = pb.sweep("mine", "linear", images / "one", protocol="mine", **options).outcomes
        assert [run["seed"] for run in outcome.runs] == [7, 8]
        [first, _] = [read_result(options["output"] / run["run_id"]) for run in outcome.runs]
        assert (first.config.train_on, first.origin) == ("train+val", Origin(protocol="mine", sweep="mine"))
        with pytest.raises(InputError, match="--select score chooses the epoch by validation"):
            pb.sweep("mine", "linear", images / "one", train_on="train+val", select="score", **options)

    def test_what_would_be_searched_is_shown_before_anything_is_trained(
        self, images: Path, options: dict[str, Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        command = ["bench", "--method", "linear", "--dataset", str(images / "one"), "--protocol", "mine", "--dry-run"]
        command += ["--backbone", "petlbench_micro", "--threads", "1", "--json", "--catalog", str(options["catalog"])]
        assert run_command([*command, "--output", str(options["output"])]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert (shown["runs"], [search["trials"] for search in shown["searches"]]) == (2, [2])
        assert not options["output"].exists()


class TestRecipes:
    def test_a_recipe_is_taken_for_its_dataset_and_what_is_given_goes_before_it(
        self, images: Path, options: dict[str, Any]
    ) -> None:
        small = {**options, "image_size": 32, "epochs": 1}
        result = pb.run("linear", images / "one", recipe="authors", weight_decay=0, **small)
        training = result.config.training
        assert (training.lr, training.weight_decay, training.batch_size) == (0.25, 0, 4)
        assert result.origin == Origin(recipe="authors")

    @pytest.mark.parametrize(
        ("method", "dataset", "message"),
        [
            ("bitfit", "one", "--recipe authors: bitfit has no recipe 'authors'"),
            ("linear", "two", "--recipe authors: the recipe 'authors' of linear says nothing of two"),
        ],
    )
    def test_a_run_without_such_a_recipe_is_refused(
        self, images: Path, options: dict[str, Any], method: str, dataset: str, message: str
    ) -> None:
        with pytest.raises(InputError, match=message):
            pb.run(method, images / dataset, recipe="authors", **options)
        with pytest.raises(InputError, match="unknown recipe 'author'"):
            pb.run(method, images / dataset, recipe="author", **options)

    def test_a_study_names_what_has_no_recipe_and_takes_it_instead_of_a_search(
        self, images: Path, options: dict[str, Any]
    ) -> None:
        datasets = [str(images / name) for name in ("one", "two")]
        study = pb.bench(["linear", "bitfit"], datasets, [0], protocol="mine", recipe="authors", **options)
        [run] = study.runs
        assert run.document["origin"] == {
            "protocol": "mine",
            "deviations": ["sweep"],
            "recipe": "authors",
            "sweep": "",
        }
        assert run.value("training.lr") == 0.25
        assert not (options["output"] / "trials").exists()
        states = study.summaries[0].unsupported()
        assert len(states) == 3
        assert all("recipe 'authors'" in str(state.error) for state in states)

    @pytest.mark.parametrize("given", [{"report": "table1", "protocol": "fair"}, {"from_sweep": "fair", "recipe": "x"}])
    def test_two_sources_of_the_same_settings_are_refused(self, options: dict[str, Any], given: dict[str, str]) -> None:
        first, second = given
        with pytest.raises(InputError, match=f"--{first.replace('_', '-')} .* and --{second} .* exclude each other"):
            pb.bench("linear", "digits", **given, **options)
