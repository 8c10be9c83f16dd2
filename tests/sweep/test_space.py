"""What is searched: the table of fair search spaces, and every method's own part of it."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.models.method import Method, load_method
from petlbench.sweep.space import Choice, Space, Span, build_space
from petlbench.sweep.spec import SpaceCard, SweepCard, load_sweep

CATALOG = Catalog()
METHODS = tuple(CATALOG.entries("method"))
FAIR = load_sweep(CATALOG.find("sweep", "fair"))
TUNED = load_sweep(CATALOG.find("sweep", "fair"), track="tuned")

# Learning rates and sizes that a reviewer accepts as fair, by method.
TABLE: dict[str, tuple[tuple[float, float], dict[str, tuple[Any, ...]]]] = {
    "full": ((1e-6, 1e-3), {}),
    "attention": ((1e-6, 1e-3), {}),
    "partial": ((1e-6, 1e-3), {}),
    "linear": ((1e-4, 1e-1), {}),
    "vpt": ((1e-4, 1e-1), {"num_tokens": (5, 10, 16, 50, 100)}),
    "adapter": ((1e-5, 1e-2), {"bottleneck": (8, 16, 48, 64), "scale": (0.1, 1)}),
    "bitfit": ((1e-5, 1e-2), {}),
    "norm": ((1e-5, 1e-2), {}),
    "lora": ((1e-5, 1e-2), {"rank": (4, 8, 16, 32)}),
    "fpt": ((5e-5, 5e-3), {"num_prompts": (8, 16, 32)}),
    "fpt_plus": ((5e-5, 5e-3), {"num_prompts": (8, 16, 32)}),
}


def method(name: str) -> type[Method[Any]]:
    return load_method(CATALOG.find("method", name))


def space(sweep: SweepCard, name: str, dataset: str = "digits", **fixed: Any) -> Space:
    given = {group: fixed.get(group, {}) for group in ("training", "method_settings")}
    return build_space(sweep, method(name), dataset, **given)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_declares_a_space_that_holds_its_default(name: str) -> None:
    """The contract of a method's search space, for those of the user too."""
    found, defaults = method(name), method(name).defaults
    low, high = defaults.lr_range
    assert 0 < low < defaults.lr < high, "the default learning rate lies inside the range, and on neither end"
    assert all(low <= rate <= high for rate in defaults.published_lr.values())
    searched = space(TUNED, name)
    assert {"training.lr", "training.weight_decay"} <= set(searched.dimensions)
    for setting, dimension in searched.dimensions.items():
        group, _, key = setting.partition(".")
        if group == "method":
            assert isinstance(dimension, Choice)
            assert len(set(dimension.values)) == len(dimension.values) > 1
            assert found.Settings.model_fields[key].default in dimension.values
            for value in dimension.values:
                assert getattr(found.from_settings({key: value}).settings, key) == value
    assert searched.published["training.lr"] == defaults.lr
    assert searched.published["training.weight_decay"] == defaults.weight_decay
    assert not searched.edges({"training.lr": defaults.lr})


@pytest.mark.parametrize("name", TABLE)
def test_spaces_are_those_of_the_table(name: str) -> None:
    rates, sizes = TABLE[name]
    matched, tuned = space(FAIR, name).dimensions, space(TUNED, name).dimensions
    rate = matched["training.lr"]
    assert isinstance(rate, Span)
    assert (rate.low, rate.high, rate.log) == (*rates, True)
    assert matched["training.weight_decay"] == Choice((0, 1e-4, 1e-2, 1e-1))
    assert set(matched) == {"training.lr", "training.weight_decay"}
    found = {key.partition(".")[2]: dimension.values for key, dimension in tuned.items() if key.startswith("method.")}  # type: ignore[union-attr]
    assert found == sizes
    assert ("training.optimizer" in tuned) == (name == "vpt")


@pytest.mark.parametrize(
    ("dataset", "rate"),
    [
        ("cmmd", 5e-5),
        ("covid", 1e-4),
        ("isic2018", 1e-4),
        ("messidor2", 2e-4),
        ("ddr", 5e-4),
        ("chncxr", 5e-4),
        ("ddsm", 1e-3),
        ("isic2016", 5e-3),
        ("digits", 2e-3),
    ],
)
def test_the_first_trial_of_fpt_has_the_authors_learning_rate(dataset: str, rate: float) -> None:
    assert dataset in CATALOG.entries("dataset")
    for name in ("fpt", "fpt_plus"):
        assert space(FAIR, name, dataset).published == {"training.lr": rate, "training.weight_decay": 0.1}


def test_a_published_default_that_the_list_lacks_is_put_in() -> None:
    for name in ("dtl", "ssf"):
        assert space(FAIR, name).dimensions["training.weight_decay"] == Choice((0, 1e-4, 1e-2, 1e-1, 0.05))


def test_what_is_given_by_name_is_not_searched() -> None:
    found = space(TUNED, "lora", training={"lr": 1e-3}, method_settings={"rank": 4})
    assert set(found.dimensions) == {"training.weight_decay"}


def test_a_scalar_and_a_list_of_one_are_held() -> None:
    card = SweepCard.model_validate(
        {"title": "t", "trials": 2, "space": {"training": {"epochs": 7, "lr": [0.1], "weight_decay": [0, 1]}}}
    )
    found = space(card, "linear")
    assert set(found.dimensions) == {"training.weight_decay"}
    assert found.settings({"training.weight_decay": 1}).training == {"epochs": 7, "lr": 0.1, "weight_decay": 1}


def test_a_sweep_may_say_what_is_searched_of_one_method() -> None:
    card = SweepCard.model_validate(
        {"title": "t", "trials": 2, "space": {"methods": {"lora": {"rank": [2, 3], "dropout": 0.1}}}}
    )
    found = space(card, "lora")
    assert found.settings({"method.rank": 2}).method == {"dropout": 0.1, "rank": 2}
    assert not space(card, "linear").dimensions


@pytest.mark.parametrize("values", [{"width": [1, 2]}, {"rank": [4, 0]}, {"rank": "many"}])
def test_a_sweep_cannot_ask_for_what_a_method_has_not(values: dict[str, Any]) -> None:
    card = SweepCard.model_validate({"title": "t", "trials": 2, "space": {"methods": {"lora": values}}})
    with pytest.raises(InputError, match=next(iter(values))):
        space(card, "lora")


def test_vpt_with_sgd_has_learning_rates_that_go_with_the_batch() -> None:
    found = space(TUNED, "vpt", training={"batch_size": 64})
    rate = found.dimensions["training.lr_sgd"]
    assert isinstance(rate, Span)
    assert (rate.low, rate.high) == (0.05 * 64 / 256, 50 * 64 / 256)
    asked = found.settings({"training.optimizer": "sgd", "training.lr_sgd": 0.3})
    assert asked.training == {"optimizer": "sgd", "lr": 0.3}
    study = optuna.create_study()
    study.enqueue_trial({"training.optimizer": "sgd"})
    study.enqueue_trial({"training.optimizer": "adamw"})
    for wanted, absent in (("lr_sgd", "lr"), ("lr", "lr_sgd")):
        trial = study.ask()
        settings = found.ask(trial)
        assert f"training.{wanted}" in trial.params
        assert f"training.{absent}" not in trial.params
        assert settings.training["lr"] == trial.params[f"training.{wanted}"]
        study.tell(trial, 0)


class TestGrid:
    def test_has_every_combination_once(self) -> None:
        sweep = load_sweep(CATALOG.find("sweep", "lr_wd"))
        found = space(sweep, "linear")
        grid = found.grid()
        assert len(grid) == len({tuple(point.items()) for point in grid}) == 24
        rates = sorted({point["training.lr"] for point in grid})
        assert rates[0], rates[-1] == (1e-4, 1e-1)
        factors = [later / earlier for earlier, later in itertools.pairwise(rates)]
        assert max(factors) / min(factors) == pytest.approx(1, abs=1e-4)

    def test_a_range_must_say_how_many(self) -> None:
        with pytest.raises(InputError, match=r"training\.lr"):
            space(FAIR, "linear").grid()


@given(st.floats(1e-9, 1e3), st.floats(1.1, 1e6), st.integers(2, 30), st.booleans(), st.floats(0, 1))
def test_a_span_stays_within_its_ends(low: float, factor: float, count: int, log: bool, share: float) -> None:
    span = Span(low, low * factor, log, count)
    points = span.points()
    assert len(points) == count
    assert (points[0], points[-1]) == (low, low * factor)
    assert list(points) == sorted(points)
    inside = low * factor**share if log else low * (1 + (factor - 1) * share)
    edge = span.edge(inside)
    if 0.06 < share < 0.94:
        assert edge is None
    elif share < 0.04:
        assert edge == "lowest"
    elif share > 0.96:
        assert edge == "highest"


def test_the_ends_of_a_list_are_edges_but_for_a_zero() -> None:
    decay = Choice((0, 1e-4, 1e-2, 1e-1))
    assert [decay.edge(value) for value in decay.values] == [None, None, None, "highest"]
    assert [Choice((8, 16, 32)).edge(value) for value in (8, 16, 32)] == ["lowest", None, "highest"]
    assert Choice(("a", "b", "c")).edge("a") is None
    assert Choice((0.1, 1)).edge(1) is None, "of two values both are ends"


class TestSolved:
    """Of a method that takes no steps, the strength of its penalty is searched, and nothing of steps."""

    SOLVED: ClassVar[dict[str, Any]] = {"solver": "lbfgs"}

    @pytest.mark.parametrize("sweep", ["fair", "quick", "lr_wd"])
    def test_its_strength_alone_is_searched(self, sweep: str) -> None:
        found = space(load_sweep(CATALOG.find("sweep", sweep)), "linear", method_settings=self.SOLVED)
        assert found.dimensions == {"method.C": Span(1e-6, 1e6, log=True, count=13)}
        assert found.fixed == {}
        assert found.published in ({}, {"method.C": 1.0})
        assert [point["method.C"] for point in found.grid()] == pytest.approx([10.0**power for power in range(-6, 7)])

    def test_a_sweep_file_may_hold_the_solver_and_narrow_the_range(self) -> None:
        own = {"methods": {"linear": {"solver": "lbfgs", "C": {"low": 0.1, "high": 10, "log": True}}}}
        found = space(FAIR.model_copy(update={"space": SpaceCard(training={"lr": [1, 2]}, **own)}), "linear")
        assert found.dimensions == {"method.C": Span(0.1, 10, log=True)}
        assert found.fixed == {"method.solver": "lbfgs"}

    def test_with_steps_it_is_not_searched(self) -> None:
        assert "method.C" not in space(TUNED, "linear").dimensions

    def test_both_in_one_search_are_refused(self) -> None:
        both = SpaceCard(training={"lr": [1, 2]}, methods={"linear": {"solver": ["steps", "lbfgs"]}})
        with pytest.raises(InputError, match=r"search over method\.solver: linear takes steps with some of these"):
            space(FAIR.model_copy(update={"space": both}), "linear")
