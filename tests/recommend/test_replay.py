"""Decisions on recorded trials: made-up tasks in which it is known what is best."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from petlbench.cli.commands.recommend import command
from petlbench.core.errors import InputError
from petlbench.recommend.prior import SHIPPED, Prior, load_prior
from petlbench.recommend.race import Race
from petlbench.recommend.replay import replay, replay_task
from petlbench.recommend.trials import Candidate, RecordedTask, read_finals, read_trials

HEADER = "task,method,lr,weight_decay,settings,val_top1\n"
RATES = (1e-3, 1e-2, 1e-1)
METHODS = {"lora": 0.0, "adapter": 2.0, "bitfit": -3.0, "linear": -20.0}


def score(method: str, rate: float, task: int) -> float:
    """Points of a candidate: the method's own, less what a rate away from the task's kind costs."""
    return 70 + METHODS[method] - 6 * abs(np.log10(rate) + 2 + (0.5 if task % 2 else -0.5)) + task


def write(folder: Path, tasks: int = 6, edit: Callable[[dict[str, str]], None] = lambda row: None) -> tuple[Path, Path]:
    trials, finals = folder / "trials.csv", folder / "finals.csv"
    rng = np.random.default_rng(0)
    with trials.open("w", newline="") as file:
        rows = csv.DictWriter(
            file, ["task", "method", "trial", "lr", "weight_decay", "settings", "val_loss", "val_top1"]
        )
        rows.writeheader()
        for task in range(tasks):
            for method in METHODS:
                for number, rate in enumerate(RATES):
                    noisy = score(method, rate, task) + rng.normal(0, 0.2)
                    row = {
                        "task": f"t{task}",
                        "method": method,
                        "trial": str(number),
                        "lr": str(rate),
                        "weight_decay": "0.0001",
                        "settings": json.dumps({"rank": 8}),
                        "val_loss": f"{2 - noisy / 100:.3f}",
                        "val_top1": f"{noisy:.2f}",
                    }
                    edit(row)
                    rows.writerow(row)
    with finals.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["task", "method", "test_last"])
        for task in range(tasks):
            for method in METHODS:
                lines.writerow([f"t{task}", method, max(score(method, rate, task) for rate in RATES)])
    return trials, finals


def test_the_best_method_is_chosen_with_a_third_of_the_trials(tmp_path: Path) -> None:
    decided = replay(*write(tmp_path), Prior.of({}), budget=4)
    assert [decision.method for decision in decided.decisions] == ["adapter"] * 6
    mean = decided.document()["mean"]
    assert mean["regret"] == mean["worst"] == 0
    assert mean["trials"] == 4


def test_a_method_that_was_tested_twice_is_refused(tmp_path: Path) -> None:
    trials, finals = write(tmp_path)
    finals.write_text(finals.read_text() + "t0,lora,50\n")
    with pytest.raises(InputError, match="lora is there before"):
        replay(trials, finals, Prior.of({}), budget=4)


def test_regret_is_what_the_best_method_has_more(tmp_path: Path) -> None:
    trials, finals = write(tmp_path)
    finals.write_text(re.sub("t0,bitfit,.*", "t0,bitfit,97", finals.read_text()))
    first = replay(trials, finals, Prior.of({}), budget=12).decisions[0]
    assert first.best == "bitfit"
    assert first.regret == pytest.approx(read_finals(finals)["t0"]["bitfit"] - first.test)


def test_no_prior_has_seen_the_task_that_is_decided(tmp_path: Path) -> None:
    trials, finals = write(tmp_path)
    shipped = Prior.of(read_trials(trials))
    assert shipped.without("t0").tasks == ()
    assert shipped.without("t9") is shipped
    plain = replay(trials, finals, Prior.of({}), budget=4).decisions
    assert replay(trials, finals, shipped, budget=4).decisions == plain


def test_what_is_left_out_counts_for_no_task(tmp_path: Path) -> None:
    trials, finals = write(tmp_path)
    less = replay(trials, finals, Prior.of({}), budget=4, leave_out=["t1", "t3", "t5"]).decisions[0]
    recorded = read_trials(trials)
    prior = Prior.of({name: recorded[name] for name in ("t2", "t4")})
    verdict = replay_task(recorded["t0"], prior, 4, 200).verdict()
    assert (less.method, less.values) == (verdict.method, dict(verdict.candidate.values))


def test_a_prior_without_trials_lets_every_method_have_one(tmp_path: Path) -> None:
    recorded = read_trials(write(tmp_path)[0])["t0"]
    race = replay_task(recorded, Prior.of({}), 4, 200)
    seen = {recorded.candidates[index].method for index in race._scores}
    assert seen == set(METHODS)


def test_the_race_ends_when_everything_was_trained(tmp_path: Path) -> None:
    recorded = read_trials(write(tmp_path)[0])["t0"]
    race = replay_task(recorded, Prior.of({}), 999, 200)
    assert race.trials == len(recorded.candidates) == 12
    assert race.next() is None


def test_near_settings_teach_each_other_and_methods_do_less() -> None:
    near, far = Candidate.of("lora", 1e-3, 0, {}), Candidate.of("lora", 1e-1, 0, {})
    other = Candidate.of("linear", 1e-3, 0, {})
    candidates = (Candidate.of("lora", 2e-3, 0, {}), near, far, other)
    race = Race(candidates, Prior.of({}).belief(candidates), 10_000)
    before = race._mean.copy()
    race.observe(0, 90.0)
    gains = race._mean - before
    assert gains[1] > gains[2] > gains[3] > 0


def test_the_loss_breaks_a_tie_of_few_images() -> None:
    candidates = (Candidate.of("a", 1e-3, 0, {}), Candidate.of("b", 1e-3, 0, {}))
    race = Race(candidates, Prior.of({}).belief(candidates), 200)
    race.observe(0, 80.0, 0.9)
    race.observe(1, 80.0, 0.5)
    assert race.verdict().method == "b"


def test_many_images_tell_methods_apart_and_few_do_not() -> None:
    candidates = [Candidate.of(method, rate, 0, {}) for method in "ab" for rate in (1e-4, 1e-3, 1e-2)]
    for images, separable in ((20, False), (100_000, True)):
        race = Race(candidates, Prior.of({}).belief(candidates), images)
        for index, score in enumerate((86.0, 88.0, 87.0, 60.0, 62.0, 61.0)):
            race.observe(index, score)
        assert race.verdict().method == "a"
        assert (race.differences("a")["b"].high < 0) is separable


def test_joined_priors_are_the_prior_of_all_their_tasks(tmp_path: Path) -> None:
    recorded = read_trials(write(tmp_path)[0])
    halves = [Prior.of({n: t for i, (n, t) in enumerate(recorded.items()) if i % 2 == half}) for half in (0, 1)]
    joined, whole = halves[0].joined(halves[1]), Prior.of(recorded)
    candidates = recorded["t0"].candidates
    ours, theirs = joined.belief(candidates), whole.belief(candidates)
    np.testing.assert_allclose(ours.mean, theirs.mean, atol=1e-12)
    np.testing.assert_allclose(ours.covariance, theirs.covariance, atol=1e-12)


def test_all_main_axes_are_the_prior_itself(tmp_path: Path) -> None:
    prior = Prior.of(read_trials(write(tmp_path)[0]))
    same = prior.compressed(6)
    np.testing.assert_allclose(same.axes.T @ same.axes, prior.axes.T @ prior.axes, atol=1e-12)
    assert len(prior.compressed(2).axes) == 2


def test_an_unknown_candidate_is_believed_to_be_like_its_method(tmp_path: Path) -> None:
    prior = Prior.of(read_trials(write(tmp_path)[0]))
    belief = prior.belief([Candidate.of(m, 3e-3, 0, {"rank": 64}) for m in ("adapter", "linear", "unheard_of")])
    assert belief.mean[0] > belief.mean[2] > belief.mean[1]


def test_a_candidate_that_a_task_lacks_does_no_harm(tmp_path: Path) -> None:
    recorded = read_trials(write(tmp_path)[0])
    short = recorded["t0"]
    recorded["t0"] = RecordedTask(short.candidates[1:], short.scores[1:], short.losses[1:])
    prior = Prior.of(recorded)
    assert np.isfinite(prior.mean).all()
    assert np.isfinite(prior.axes).all()


def test_the_shipped_prior_can_be_read_and_holds_no_task_whole() -> None:
    prior = load_prior(SHIPPED)
    assert len(prior.candidates) > 500
    assert 0 < len(prior.axes) < len(prior.tasks)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("val_top1", "high", "line 2: val_top1 = 'high': it is no number"),
        ("val_top1", "nan", "line 2: val_top1 = 'nan': it is no number"),
        ("val_top1", "170", "outside of 0 to 100"),
        ("val_loss", "low", "line 2: val_loss = 'low': it is no number"),
        ("lr", "inf", "line 2: lr = 'inf': it is no number"),
        ("method", "", "line 2: method = '': it is empty"),
        ("settings", "[1", "line 2: settings = '[1': it is no plain JSON object"),
        ("settings", '{"a": {}}', "it is no plain JSON object"),
        ("settings", '{"a": 1e999}', "it is no plain JSON object"),
        ("settings", '{"a": 1' + 400 * "0" + "}", "it is no plain JSON object"),
        ("settings", '{"lr": 1}', "lr has a column of its own"),
        ("method", "unheard_of", "has no test score of unheard_of on t0"),
    ],
)
def test_a_bad_cell_is_named(tmp_path: Path, name: str, value: str, words: str) -> None:
    cells = iter([value])

    def edit(row: dict[str, str]) -> None:
        row[name] = next(cells, row[name])

    with pytest.raises(InputError) as caught:
        replay(*write(tmp_path, 2, edit), Prior.of({}), budget=4)
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column"),
        ("task,method\n", "no column"),
        (HEADER, "no rows"),
        (f"{HEADER}t,m,1,1,{{}},50,\n", "line 2: the row has 7 cells; the header has 6"),
        (f"{HEADER}t,m,1,1,{{}},0.5\n", "no val_top1 is above 1"),
        (HEADER + "".join(f"t,m,{rate},1,,50\n" for rate in range(1, 5002)), "5,001 different candidates"),
    ],
)
def test_a_table_that_nothing_can_be_decided_on_is_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "trials.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=words):
        read_trials(file)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        '{"schema": 2}',
        "\x00",
        '{"schema": 1, "source": "", "tasks": [], "candidates": [], "mean": [1], "axes": []}',
    ],
)
def test_a_damaged_prior_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "prior.json"
    file.write_text(text)
    with pytest.raises(InputError, match=r"prior"):
        load_prior(file)


def test_the_command_prints_the_same_decisions_as_json_and_as_a_table(tmp_path: Path) -> None:
    files = [str(file) for file in write(tmp_path)]
    document = json.loads(CliRunner().invoke(command, ["--replay", *files, "--trials", "4", "--json"]).stdout)
    assert [task["method"] for task in document["tasks"]] == ["adapter"] * 6
    assert document["tasks"][0].keys() >= {"task", "method", "trials", "regret", "separable", "held"}
    assert document["mean"].keys() >= {"regret", "low", "high", "worst"}
    table = CliRunner().invoke(command, ["--replay", *files, "--trials", "4", "--prior", "none"])
    assert "Mean regret 0.00 points" in " ".join(table.output.split())


def test_a_task_to_leave_out_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such task"):
        replay(*write(tmp_path), Prior.of({}), budget=4, leave_out=["moon"])


def test_several_backbones_share_the_prior_and_each_has_its_own_level(tmp_path: Path) -> None:
    prior = Prior.of(read_trials(write(tmp_path)[0]))
    candidates = [Candidate.of(m, 1e-2, 1e-4, {"rank": 8}, b) for b in ("small", "large") for m in ("lora", "adapter")]
    belief = prior.belief(candidates)
    alone = prior.belief([candidate.anywhere for candidate in candidates[:2]])
    assert belief.mean[:2] == pytest.approx(belief.mean[2:])
    # A single backbone is as if there were none to choose of.
    np.testing.assert_array_equal(belief.covariance[:2, :2], alone.covariance)
    assert (np.linalg.eigvalsh(belief.covariance) > 0).all()
    race = Race(candidates, belief, 1000)
    assert [candidates[index].arm for index in race.opening] == [
        f"{method} on {backbone}" for method in ("adapter", "lora") for backbone in ("small", "large")
    ]
    before = race._mean.copy()
    race.observe(0, 99.0)
    gains = race._mean - before
    assert gains[0] > gains[1] > gains[3] > 0
