"""``petlbench bench``: every combination, what goes wrong in one of them, and what the whole would take."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from petlbench.core.request import Request
from petlbench.results.journal import read_journal
from petlbench.study.live_table import LiveTable
from petlbench.study.planned_run import PlannedRun
from petlbench.study.status import RunState, StudyStatus

Cli = Callable[..., Any]
Refused = Callable[..., dict[str, str]]
Bench = Callable[..., list[str]]

TROUBLED = """
import torch

from petlbench import Adapted, Classifier, Method, MethodCard, MethodSettings, TrainingDefaults


class Raising(Classifier):
    def forward(self, inputs):
        raise ValueError("raised in forward")


class Undefined(Classifier):
    def forward(self, inputs):
        return super().forward(inputs) * float("nan")


class Hungry(Classifier):
    def forward(self, inputs):
        raise MemoryError("raised in forward")


class Troubled(Method[MethodSettings]):
    Settings = MethodSettings
    defaults = TrainingDefaults(lr=0.1)
    head = Classifier

    def adapt(self, backbone, num_classes):
        return Adapted(self.head(backbone, num_classes), frozenset({"head.bias", "head.weight"}))


class InAdapt(Troubled):
    card = MethodCard(name="in_adapt", title="In adapt", family="own", year=2026, paper="none")

    def adapt(self, backbone, num_classes):
        raise ValueError("raised in adapt")


class InForward(Troubled):
    card = MethodCard(name="in_forward", title="In forward", family="own", year=2026, paper="none")
    head = Raising


class NotANumber(Troubled):
    card = MethodCard(name="not_a_number", title="NaN", family="own", year=2026, paper="none")
    head = Undefined


class TooLarge(Troubled):
    card = MethodCard(name="too_large", title="Too large", family="own", year=2026, paper="none")
    head = Hungry


class Choosy(Troubled):
    card = MethodCard(name="choosy", title="Choosy", family="own", year=2026, paper="none")

    def refuse(self, backbone):
        return "it wants another one"
"""


EXITING = """
import sys

from petlbench import Adapted, Classifier, Method, MethodCard, MethodSettings, TrainingDefaults


class Leaving(Classifier):
    def forward(self, inputs):
        sys.exit(0)


class InRefuse(Method[MethodSettings]):
    card = MethodCard(name="exits_in_refuse", title="Exits", family="own", year=2026, paper="none")
    Settings = MethodSettings
    defaults = TrainingDefaults(lr=0.1)

    def refuse(self, backbone):
        sys.exit(0)

    def adapt(self, backbone, num_classes):
        return Adapted(Leaving(backbone, num_classes), frozenset({"head.bias", "head.weight"}))


class InAdapt(InRefuse):
    card = MethodCard(name="exits_in_adapt", title="Exits", family="own", year=2026, paper="none")

    def refuse(self, backbone):
        return None

    def adapt(self, backbone, num_classes):
        sys.exit("enough")


class InForward(InAdapt):
    card = MethodCard(name="exits_in_forward", title="Exits", family="own", year=2026, paper="none")
    adapt = InRefuse.adapt
"""


@pytest.fixture
def bench(pictures: Path) -> Bench:
    """Arguments of a study whose runs take less than a second each."""

    def arguments(methods: str = "linear", *more: str, dataset: str = "pictures", seeds: str = "0") -> list[str]:
        common = ("--backbone", "petlbench_micro", "--image-size", "32", "--epochs", "1", "--device", "cpu")
        where = ("--threads", "1", "--workers", "0", "--tracking-uri", "none")
        return ["bench", "--method", methods, "--dataset", dataset, "--seed", seeds, *common, *where, *more]

    return arguments


@pytest.fixture
def troubled(here: Path) -> Path:
    """A catalogue folder with methods that go wrong."""
    (here / "own").mkdir()
    (here / "own" / "troubled.py").write_text(TROUBLED)
    return here / "own"


def stored(run_id: str) -> Any:
    return json.loads(Path("results", run_id, "result.json").read_text())


def test_a_study_is_every_combination_once(cli: Cli, bench: Bench) -> None:
    outcome = cli(*bench("full,linear", "--json", seeds="0,1"))
    assert outcome.status == 0
    runs = outcome.document["runs"]
    assert [(one["method"], one["seed"]) for one in runs] == [
        ("full", 0), ("full", 1), ("linear", 0), ("linear", 1)
    ]  # fmt: skip
    for one in runs:
        assert one["status"] == "finished"
        assert one["metrics"] == stored(one["run_id"])["metrics"]
        assert one["scores"] == stored(one["run_id"])["scores"]
        assert one["scores"]["pme"] is not None
    means = {cell["method"]: cell["val_auc"]["mean"] for cell in outcome.document["cells"]}
    assert means[outcome.document["best"]["pictures"]["method"]] == max(means.values())
    assert outcome.err.count("finished, test AUC") == 4

    before = read_journal(Path("results"))
    again = cli(*bench("full,linear", seeds="0,1"))
    assert again.status == 0
    assert read_journal(Path("results")) == before
    assert again.err == ""
    assert "±" in again.out
    assert "best on pictures, by validation AUC" in again.out


@pytest.mark.slow
def test_what_goes_wrong_in_one_method_stays_there(cli: Cli, bench: Bench, troubled: Path) -> None:
    study = bench("in_adapt,in_forward,not_a_number,too_large,choosy,linear", "--catalog", str(troubled))
    outcome = cli(*study, "--json")
    assert outcome.status == 1
    runs = {one["method"]: one for one in outcome.document["runs"]}
    assert {name: one["status"] for name, one in runs.items()} == {
        "in_adapt": "failed",
        "in_forward": "failed",
        "not_a_number": "failed",
        "too_large": "oom",
        "choosy": "unsupported",
        "linear": "finished",
    }
    assert "raised in adapt" in runs["in_adapt"]["error"]["message"]
    assert "raised in forward" in runs["in_forward"]["error"]["message"]
    assert "it wants another one" in runs["choosy"]["error"]["message"]
    assert all(one["error"]["message"] for name, one in runs.items() if name != "linear")

    attempts = len(read_journal(Path("results")))
    again = cli(*study)
    assert again.status == 1
    assert "not finished" in again.out
    assert "cannot be had" in again.out
    # One that raises before it begins leaves no result, and is begun again; the others are left alone.
    assert sum(line["event"] == "started" for line in read_journal(Path("results"))[attempts:]) == 0
    retry = again.out.partition("to try them again: ")[2].split()
    assert retry[:2] == ["petlbench", "bench"]
    assert retry[-1] == "--retry-failed"
    assert cli(*retry[1:]).status == 1
    assert any(line["event"] == "ended" for line in read_journal(Path("results"))[attempts:])


def test_a_method_that_ends_the_program_ends_its_own_run(cli: Cli, bench: Bench, here: Path) -> None:
    (here / "own").mkdir()
    (here / "own" / "exiting.py").write_text(EXITING)
    outcome = cli(*bench("exits_in_refuse,exits_in_adapt,exits_in_forward,linear", "--catalog", "own", "--json"))
    assert outcome.status == 1
    runs = {run["method"]: run for run in outcome.document["runs"]}
    statuses = {name: run["status"] for name, run in runs.items()}
    assert statuses.pop("linear") == "finished"
    assert set(statuses.values()) == {"failed"}
    for name in statuses:
        assert "SystemExit" in runs[name]["error"]["message"]
    assert stored(runs["exits_in_forward"]["run_id"])["status"] == "failed"


def test_an_option_that_is_given_again_adds_to_it(cli: Cli, bench: Bench) -> None:
    again = ("--method", "linear,full", "--seed", "3", "--seed", "0", "--dry-run", "--json")
    outcome = cli(*bench("bitfit", *again))
    assert outcome.document["runs"] == 6
    assert [cell["method"] for cell in outcome.document["cells"]] == ["bitfit", "linear", "full"]


def test_combinations_that_cannot_be_had_are_no_failure(cli: Cli, bench: Bench, troubled: Path) -> None:
    outcome = cli(*bench("choosy,linear", "--catalog", str(troubled)))
    assert outcome.status == 0
    assert "it wants another one" in outcome.out


def test_settings_of_one_method_and_a_sweeps_winner(cli: Cli, bench: Bench) -> None:
    planned = stored(cli(*bench("lora", "--json")).document["runs"][0]["run_id"])["config"]
    folder = Path("results/sweeps/fair")
    folder.mkdir(parents=True)
    others = {**planned, "dataset": "/others/pictures"}
    for name, config, lr in (("a", planned, 0.125), ("b", others, 0.5), ("c", {**planned, "image_size": 64}, 0.25)):
        best = {"training": {"lr": lr, "epochs": 5}, "method": {"rank": 2}}
        document = {"method": "lora", "dataset": "pictures", "best": best, "config": config}
        (folder / f"{name}.json").write_text(json.dumps(document))
    outcome = cli(*bench("lora", "--from-sweep", "fair", "--set", "lora.rank=3", "--json"))
    config = stored(outcome.document["runs"][0]["run_id"])["config"]
    assert (config["training"]["lr"], config["training"]["epochs"], config["method_settings"]["rank"]) == (0.125, 1, 3)


def test_a_dry_run_says_what_a_study_would_take_and_writes_nothing(cli: Cli, bench: Bench, here: Path) -> None:
    before = sorted(here.rglob("*"))
    outcome = cli(*bench("full,fpt", "--dry-run", "--json", seeds="0,1"))
    assert outcome.status == 0
    assert sorted(here.rglob("*")) == before
    cells = {one["method"]: one for one in outcome.document["cells"]}
    assert outcome.document["runs"] == 4
    for one in cells.values():
        assert one["memory"]["source"] == "predicted"
        assert one["fits"] is True
        assert (one["seconds"], one["finished"], one["runs"]) == (None, 0, 2)
    assert cells["fpt"]["feature_cache"]["bytes"] > 0
    assert cells["full"]["feature_cache"]["bytes"] is None


@pytest.mark.slow
def test_the_time_of_a_run_is_that_of_earlier_ones_alike(cli: Cli, bench: Bench) -> None:
    run = cli(*bench("linear", "--json")).document["runs"][0]
    cells = cli(*bench("linear,bitfit", "--dry-run", "--json", "--lr", "0.5", seeds="0,1")).document["cells"]
    seconds = stored(run["run_id"])["timing"]["total"]
    assert [one["seconds"] for one in cells] == [seconds, None]
    shown = cli(*bench("linear,bitfit", "--dry-run", seeds="0,1"))
    assert shown.status == 0
    assert "1/2" in shown.out
    assert "–" in shown.out


MINE = """
from petlbench.study.executors.job import Executor, ExecutorCard
from petlbench.study.executors.job import Started
from petlbench.study.executors.run_job import perform


class Mine(Executor):
    card = ExecutorCard(name="mine", title="one after the other")

    def run(self, jobs, on):
        for job in jobs:
            if job is not None:
                print("mine carries out", job.config.run_id)
                on(job, Started("mine"))
                on(job, perform(job, lambda event: on(job, event)))
"""


def test_an_executor_of_ones_own_is_one_file(cli: Cli, bench: Bench, here: Path) -> None:
    (here / "own").mkdir()
    (here / "own" / "mine.py").write_text(MINE)
    outcome = cli(*bench("full,linear", "--executor", "mine", "--catalog", "own", "--json"))
    assert outcome.status == 0, outcome.err
    runs = outcome.document["runs"]
    assert [run["status"] for run in runs] == ["finished"] * 2
    assert all(f"mine carries out {run['run_id']}" in outcome.err for run in runs)


def test_what_will_not_fit_is_said(cli: Cli, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("petlbench.study.forecast.preview.free_memory", lambda: 1000)
    cells = cli(*bench("full,fpt", "--dry-run", "--json", "--cache-size", "1kB")).document["cells"]
    assert [one["fits"] for one in cells] == [False, False]
    assert "a step takes" in cells[0]["problems"][0]
    assert any("--cache-size" in text for text in cells[1]["problems"])
    assert cells[1]["memory"]["source"] == "predicted"


@pytest.mark.parametrize(
    ("change", "kind", "named"),
    [
        ({"methods": "linear,lroa"}, "unknown_method", "lroa"),
        ({"dataset": "pictures,pictrues"}, "unknown_dataset", "pictrues"),
        ({"dataset": "pictures,isic2018"}, "data_missing", "isic2018"),
        ({"seeds": "0,one"}, "usage", "one"),
        ({"methods": ","}, "usage", "--method"),
        ({"more": ("--set", "lora.rank=3")}, "unknown_setting_group", "lora"),
        ({"more": ("--set", "linear.rank=3")}, "unknown_setting", "rank"),
        ({"more": ("--study", "a/b")}, "bad_study", "a/b"),
        ({"more": ("--executor", "lcoal")}, "unknown_executor", "lcoal"),
        ({"more": ("--from-sweep", "fiar")}, "unknown_winner", "fiar"),
        ({"more": ("--timeout", "nan")}, "bad_setting", "--timeout nan"),
        ({"more": ("--timeout", "inf")}, "bad_setting", "--timeout inf"),
        ({"more": ("--cpus-per-run", "nan")}, "bad_setting", "--cpus-per-run nan"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    refused: Refused, bench: Bench, change: dict[str, Any], kind: str, named: str
) -> None:
    more = change.pop("more", ())
    error = refused(*bench(change.pop("methods", "linear"), *more, **change))
    assert error["kind"] == kind
    assert named in error["message"]


def test_the_live_table_counts_what_is_done_and_names_what_is_under_way() -> None:
    states = [RunState(PlannedRun("fpt", "digits", seed, Request("fpt"))) for seed in range(4)]
    states += [RunState(PlannedRun("choosy", "digits", 0, Request("choosy")), "unsupported")]
    board = StudyStatus(states)
    console = Console(force_terminal=True, width=100, height=30, record=True, color_system=None)
    states[0].status, states[1].status, states[1].phase = "finished", "running", "preloading"
    states[2].status, states[2].error = "oom", {"kind": "oom", "message": "too large", "hint": ""}
    with LiveTable(console) as live:
        live.begin(board, 1)
        live.changed(states[2])
    shown = console.export_text()
    assert "fpt on digits, seed 2: oom: too large" in shown
    assert "1/4 +1 ✗1" in shown
    assert "fpt on digits, seed 1: preloading" in shown
    assert "time left unknown" in shown
