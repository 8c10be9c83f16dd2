"""The comparison of methods: its arithmetic by hand, its properties, and how often it errs."""

from __future__ import annotations

import math
from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp, ttest_ind

from petlbench.metrics.classification import AUC
from petlbench.results.predictions import Predictions
from petlbench.statistics.comparison import Evidence
from petlbench.statistics.runs import Scored
from petlbench.statistics.verdict import Comparison, Source, add_up, judge
from tests.statistics.studies import draw_study, scored_run, with_interval


def compared(records: list[Scored], a: str = "a", b: str = "b", dataset: str = "dataset 0") -> Comparison:
    found = Evidence(records).compare(a, b, dataset)
    assert found is not None
    return found


def table(scores: dict[str, list[list[float]]]) -> list[Scored]:
    """Runs by method, split and seed whose predictions are all alike, so that images add nothing."""
    same = Predictions(["x", "y", "z"], [None] * 3, np.array([0, 1, 1]), np.array([[0, -1], [0, 1], [0, 2.0]]))
    return [
        Scored(method, "d", seed, f"repeat:{len(splits)}/{split}", score, lambda: same, 0.25)
        for method, splits in scores.items()
        for split, seeds in enumerate(splits)
        for seed, score in enumerate(seeds)
    ]


def test_seeds_alone_are_welchs_test() -> None:
    a, b = [0.90, 0.92, 0.97], [0.85, 0.86, 0.86, 0.88]
    ours, expected = compared(table({"a": [a], "b": [b]}), dataset="d"), ttest_ind(a, b, equal_var=False)
    assert ours.p_value == pytest.approx(expected.pvalue)
    assert ours.df == pytest.approx(expected.df)
    interval = expected.confidence_interval()
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high))
    assert ours.parts.image == 0
    assert ours.seeds == (3, 4)


def test_splits_are_corrected_as_nadeau_and_bengio_do() -> None:
    a, b = [[0.90], [0.95], [0.93], [0.97], [0.92]], [[0.88], [0.92], [0.93], [0.93], [0.90]]
    ours = compared(table({"a": a, "b": b}), dataset="d")
    differences = np.array(a)[:, 0] - np.array(b)[:, 0]
    assert ours.error == pytest.approx(math.sqrt((1 / 5 + 0.25) * differences.var(ddof=1)))
    assert ours.df == 4
    assert ours.splits == 5
    uncorrected = ttest_1samp(differences, 0).pvalue
    assert ours.p_value is not None
    assert ours.p_value > uncorrected


def test_the_images_part_is_delongs_variance_of_the_difference() -> None:
    records = draw_study(np.random.default_rng(0), {"a": 0.9, "b": 0.85}, seeds=1)
    a, b = (record.predictions() for record in records)
    assert a is not None
    assert b is not None
    wins = [(x.logits[x.labels == 1, 1][:, None] > x.logits[x.labels == 0, 1][None]).astype(float) for x in (a, b)]
    difference = wins[0] - wins[1]
    expected = difference.mean(axis=1).var(ddof=1) / 100 + difference.mean(axis=0).var(ddof=1) / 100
    assert compared(records).parts.image == pytest.approx(expected)


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.integers(2, 4), st.sampled_from([1, 3]))
def test_swapping_the_methods_mirrors_everything(seed: int, seeds: int, splits: int) -> None:
    records = draw_study(
        np.random.default_rng(seed), {"a": 0.9, "b": 0.85}, spread=0.01, seeds=seeds, positives=30, splits=splits
    )
    one, other = compared(records), compared(records, "b", "a")
    assert one.low is not None
    assert one.high is not None
    assert one.p_better is not None
    assert one.low < one.effect < one.high
    assert (other.effect, other.low, other.high) == pytest.approx((-one.effect, -one.high, -one.low))
    assert other.p_better == pytest.approx(1 - one.p_better)
    assert other.verdict == one.verdict == ("separable" if one.low > 0 or one.high < 0 else "not separable")
    # The parts are the error, but where the splits vary less than images and seeds say.
    assert one.error == pytest.approx(math.sqrt(sum(part or 0.0 for part in astuple(one.parts))))


def test_one_seed_on_one_split_is_too_few_and_says_so() -> None:
    ours = compared(draw_study(np.random.default_rng(0), {"a": 0.95, "b": 0.7}, seeds=1))
    assert ours.verdict == "too few"
    assert (ours.low, ours.high, ours.p_better) == (None, None, None)
    assert ours.effect > 0.1
    assert "one seed" in ours.note
    assert ours.parts.image is not None
    assert ours.parts.seed is None


def test_without_predictions_nothing_is_claimed() -> None:
    records = [
        replace(one, predictions=lambda: None) for one in draw_study(np.random.default_rng(0), {"a": 0.9, "b": 0.6})
    ]
    ours = compared(records)
    assert ours.verdict == "too few"
    assert "predictions" in ours.note


def test_groups_of_equal_images_make_nothing_surer() -> None:
    def grouped(record: Scored) -> Scored:
        known = record.predictions()
        assert known is not None
        names = [name for name in known.image_ids for _ in range(3)]
        copies = Predictions(
            [f"{name} {row}" for row, name in enumerate(names)],
            [f"patient {name}" for name in names],
            np.repeat(known.labels, 3),
            np.repeat(known.logits, 3, axis=0),
        )
        return replace(record, predictions=lambda: copies)

    records = draw_study(np.random.default_rng(3), {"a": 0.9, "b": 0.88})
    alone, copied = compared(records), compared([grouped(one) for one in records])
    assert copied.parts.image == pytest.approx(alone.parts.image, rel=0.03)


def test_methods_that_never_err_are_not_separable_and_have_no_interval() -> None:
    labels, scores = np.repeat([0, 1], 20), np.arange(40.0)
    records = [scored_run(method, "d", seed, labels, scores) for method in "ab" for seed in range(3)]
    ours = compared(records, dataset="d")
    assert ours.verdict == "not separable"
    assert ours.low is None
    assert ours.p_better == 0.5


def test_what_is_absent_is_none() -> None:
    evidence = Evidence(table({"a": [[0.9, 0.8]], "b": [[0.7, 0.8]]}))
    assert evidence.compare("a", "c", "d") is None
    assert evidence.compare("a", "b", "other") is None
    assert evidence.average("a", "c") is None
    assert evidence.cell("c", "d") is None
    assert evidence.datasets == ("d",)
    other = [replace(one, split="kfold:5/1@0") for one in table({"b": [[0.7, 0.8]]})]
    assert Evidence([*table({"a": [[0.9, 0.8]]}), *other]).compare("a", "b", "d") is None


def test_an_average_adds_variances_up_here_and_draws_datasets_elsewhere() -> None:
    evidence = Evidence(draw_study(np.random.default_rng(1), {"a": 0.9, "b": 0.85}, spread=0.01, datasets=4))
    average = evidence.average("a", "b")
    assert average is not None
    alone = [evidence.compare("a", "b", dataset) for dataset in evidence.datasets]
    effects = [each.effect for each in alone if each is not None]
    errors = np.array([each.error for each in alone if each is not None], dtype=float)
    assert average.here.effect == average.elsewhere.effect == pytest.approx(np.mean(effects))
    assert average.here.error == pytest.approx(math.sqrt((errors**2).sum()) / 4)
    assert average.elsewhere.df == 3
    expected = max(np.std(effects, ddof=1) / 2, average.here.error or 0)
    assert average.elsewhere.error == pytest.approx(expected)
    two = evidence.average("a", "b", ["dataset 0", "dataset 2"])
    assert two is not None
    assert two.elsewhere.verdict == "too few"
    assert "3 datasets" in two.elsewhere.note
    assert two.here.verdict != "too few"
    assert (two.here.datasets, two.here.effect) == (2, pytest.approx((effects[0] + effects[2]) / 2))


@pytest.mark.parametrize("splits", [2, 4])
def test_each_split_adds_images_to_a_cell(splits: int) -> None:
    interval = {"low": 0.8, "high": 0.95, "level": 0.95, "few": False}
    runs = [replace(one, interval=interval) for one in table({"a": [[0.9, 0.9]] * splits})]
    cell = Evidence(runs).cell("a", "d")
    assert cell is not None
    assert (cell.low, cell.high) == pytest.approx((0.9 - 0.1 / splits**0.5, 0.9 + 0.05 / splits**0.5))


def test_a_cell_sums_up_images_and_seeds() -> None:
    records = [with_interval(one) for one in draw_study(np.random.default_rng(5), {"a": 0.9}, spread=0.02)]
    cell, alone = Evidence(records).cell("a", "dataset 0"), Evidence(records[:1]).cell("a", "dataset 0")
    scores = [one.score for one in records]
    assert cell is not None
    assert cell.mean == pytest.approx(np.mean(scores))
    assert cell.std == pytest.approx(np.std(scores, ddof=1))
    assert cell.low is not None
    assert cell.high is not None
    assert cell.low < cell.mean < cell.high
    assert alone is not None
    assert alone.std is None
    interval = records[0].interval
    assert interval is not None
    assert (alone.low, alone.high) == pytest.approx((interval["low"], interval["high"]), abs=1e-6)
    assert "one run" in alone.note
    assert Evidence(table({"a": [[0.9, 0.8]]})).cell("a", "d").low is None  # type: ignore[union-attr]


def test_degrees_of_freedom_add_up_as_satterthwaites() -> None:
    whole = add_up([Source(1.0, 2.0), Source(3.0, 6.0)])
    assert whole.variance == 4
    assert whole.df == pytest.approx(16 / (1 / 2 + 9 / 6))
    assert judge(0.1, None, 0.95).verdict == "too few"


SPREADS = (0.0, 0.01, 0.02, 0.03)


def separable(seed: int, trials: int, better: float, **study: float) -> list[float]:
    """Percent of studies in which two methods are called separable, by the seeds' standard deviation."""
    rng, found = np.random.default_rng(seed), []
    for spread in SPREADS:
        aucs = {"a": 0.88 + better, "b": 0.88}
        said = [compared(draw_study(rng, aucs, spread=spread, **study)).verdict for _ in range(trials)]  # type: ignore[arg-type]
        found.append(100 * said.count("separable") / trials)
    return found


@pytest.mark.slow
def test_error_rate_under_the_null() -> None:
    print(
        "\ntwo methods of one true AUC called separable, in %"
        "\nseeds positives negatives  seed deviation 0, 1, 2, 3 points"
    )
    rates = []
    for seeds, positives, negatives in ((3, 100, 100), (5, 100, 100), (3, 40, 160), (5, 40, 160)):
        found = separable(11, 400, 0.0, seeds=seeds, positives=positives, negatives=negatives)
        print(f"{seeds:5d} {positives:9d} {negatives:9d}  " + "  ".join(f"{one:5.1f}" for one in found))
        rates += found
    assert 1 <= np.mean(rates) <= 7
    assert min(rates) >= 0.5
    assert max(rates) <= 7


@pytest.mark.slow
def test_power() -> None:
    print("\na method that is 3 points better called separable, in %\nseeds  seed deviation 0, 1, 2, 3 points")
    for seeds in (3, 5):
        found = separable(12, 150, 0.03, seeds=seeds, positives=400, negatives=800)
        print(f"{seeds:5d}  " + "  ".join(f"{one:5.1f}" for one in found))
    assert found[0] > 70
    assert found[1] > 45


@pytest.mark.slow
def test_error_rate_over_datasets() -> None:
    rng = np.random.default_rng(13)
    found = {"here": 0, "elsewhere": 0}
    for _ in range(200):
        average = Evidence(
            draw_study(rng, {"a": 0.9, "b": 0.9}, spread=0.02, datasets=4, positives=60, negatives=60)
        ).average("a", "b")
        for name in found:
            found[name] += getattr(average, name).verdict == "separable"
    print("\nover 4 datasets of one true AUC called separable, in %: ", {name: one / 2 for name, one in found.items()})
    assert all(one / 2 <= 8 for one in found.values())


@pytest.mark.slow
def test_coverage_of_cells_over_seeds() -> None:
    rng, held, trials = np.random.default_rng(14), 0, 300
    for _ in range(trials):
        records = [with_interval(one) for one in draw_study(rng, {"a": 0.9}, spread=0.02, positives=60, negatives=90)]
        cell = Evidence(records).cell("a", "dataset 0")
        held += cell.low <= 0.9 <= cell.high  # type: ignore[union-attr, operator]
    print(f"\ncoverage of a cell's interval, 3 seeds that vary by 2 points: {100 * held / trials:.1f} %")
    assert 92 <= 100 * held / trials <= 99.5


def test_where_less_of_a_score_is_better_only_who_is_better_turns() -> None:
    records = draw_study(np.random.default_rng(1), {"a": 0.9, "b": 0.85}, spread=0.01, datasets=4)
    ends = [Evidence(records, replace(AUC, direction=end)) for end in ("higher", "lower")]
    more, less = (evidence.average("a", "b") for evidence in ends)
    assert more is not None
    assert less is not None
    alone = [evidence.compare("a", "b", "dataset 0") for evidence in ends]
    for higher, lower in ((more.here, less.here), (more.elsewhere, less.elsewhere), alone):
        assert higher is not None
        assert lower is not None
        assert higher.p_better is not None
        assert lower == replace(higher, p_better=1 - higher.p_better)
