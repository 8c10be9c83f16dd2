"""Many methods at once: who gets which setting, and what becomes of those that cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.core.process_pool import open_workers
from petlbench.core.request import Request
from petlbench.memory import predict
from petlbench.models.build import assemble
from petlbench.models.method import configured_method
from petlbench.study.forecast.memory import LARGEST, Extras, Row, common_settings, largest_batch_size, predict_rows
from petlbench.study.grid import Grid, Vary
from petlbench.study.planned_run import PlannedRun

TINY = Request(
    method="", backbone="vit_tiny_patch16_224", image_size=64, device="cuda", training={"batch_size": 4}, weights="none"
)
BROKEN = '''
from petlbench import Method, MethodCard, TrainingDefaults


class Broken(Method):
    """Cannot be put on anything."""

    card = MethodCard(name="broken", title="Broken", family="own", year=2026, paper="https://example.org")
    defaults = TrainingDefaults(lr=1e-3)

    def adapt(self, backbone, num_classes):
        raise ZeroDivisionError("by design")
'''


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog()


def plan(request: Request, methods: list[str], vary: Vary | None, catalog: Catalog) -> list[PlannedRun]:
    return Grid(methods, (), (0,), request, vary=vary).plans(catalog, Path())


def settings_of(runs: list[PlannedRun]) -> dict[str, Any]:
    return {run.method: dict(run.request.method_settings) for run in runs if run.request is not None}


class TestCases:
    def test_every_method_has_every_value_in_order(self, catalog: Catalog) -> None:
        runs = plan(TINY, ["norm", "linear"], Vary.parse("batch-size=2,1"), catalog)
        assert [(run.method, dict(run.varied)) for run in runs] == [
            ("norm", {"batch-size": 2}),
            ("norm", {"batch-size": 1}),
            ("linear", {"batch-size": 2}),
            ("linear", {"batch-size": 1}),
        ]
        assert [run.config.training.batch_size for run in runs if run.config is not None] == [2, 1, 2, 1]

    @pytest.mark.parametrize(
        ("text", "field", "values"),
        [
            ("image-size=32,64", "image_size", [32, 64]),
            ("precision=fp32,bf16", "precision", ["fp32", "bf16"]),
            ("attention-kernel=eager,fused", "attention_kernel", ["eager", "fused"]),
            ("method.rank=2,4", "method_settings", [2, 4]),
        ],
    )
    def test_what_is_varied_is_what_the_run_would_have(
        self, catalog: Catalog, text: str, field: str, values: list[Any]
    ) -> None:
        configs = [run.config for run in plan(TINY, ["lora"], Vary.parse(text), catalog)]
        found = [getattr(config, field) for config in configs]
        assert [value["rank"] if field == "method_settings" else value for value in found] == values

    def test_what_differs_is_not_called_common(self, catalog: Catalog) -> None:
        common = common_settings(plan(TINY, ["norm"], Vary.parse("optimizer=adamw,sgd"), catalog))
        assert common["optimizer"] is None
        assert (common["image_size"], common["batch_size"], common["precision"]) == (64, 4, "fp32")

    def test_a_setting_goes_to_the_methods_that_have_it(self, catalog: Catalog) -> None:
        runs = plan(replace(TINY, method_settings={"rank": "2"}), ["lora", "norm", "fpt"], None, catalog)
        assert settings_of(runs) == {"lora": {"rank": "2"}, "norm": {}, "fpt": {}}
        assert all(run.refusal is None for run in runs)

    def test_a_setting_that_nobody_has_is_refused(self, catalog: Catalog) -> None:
        with pytest.raises(InputError, match="no method that was asked for has a setting 'rnak'"):
            plan(replace(TINY, method_settings={"rnak": "2"}), ["lora", "norm"], None, catalog)

    def test_a_value_that_every_method_refuses_is_refused(self, catalog: Catalog) -> None:
        with pytest.raises(InputError, match="rank = '-1' is refused"):
            plan(replace(TINY, method_settings={"rank": "-1"}), ["lora", "norm"], None, catalog)

    def test_a_value_that_one_method_refuses_is_its_own_affair(self, catalog: Catalog) -> None:
        # A number of layers for mlp_head, and which of them for fpt.
        given = replace(TINY, method_settings={"layers": "later_half"})
        mlp_head, fpt = plan(given, ["mlp_head", "fpt"], None, catalog)
        assert "layers = 'later_half' is refused" in str(mlp_head.refusal)
        assert (mlp_head.config, mlp_head.is_defect) == (None, False)
        assert fpt.refusal is None

    def test_preloading_goes_to_the_methods_that_can(self, catalog: Catalog) -> None:
        runs = plan(replace(TINY, preload=True), ["fpt", "norm"], None, catalog)
        assert [run.config.preload for run in runs if run.config is not None] == [True, False]

    def test_the_papers_figures_stand_beside_their_own_setting_alone(self, catalog: Catalog) -> None:
        theirs = replace(TINY, backbone="vit_base_patch16_384", image_size=512, training={})
        (run,) = plan(theirs, ["full"], None, catalog)
        assert Row(run).printed is not None
        others = {"preload": False, "device": "cpu", "checkpointing": True, "training": {"optimizer": "sgd"}}
        for name, value in others.items():
            (run,) = plan(replace(theirs, **{name: value}), ["full"], None, catalog)
            assert Row(run).printed is None, name


class TestRows:
    def test_a_row_is_what_the_run_alone_would_be_predicted(self, catalog: Catalog) -> None:
        (run,) = plan(TINY, ["lora"], None, catalog)
        assert run.config is not None
        (row,) = predict_rows([run], 3, Extras(context=7))
        assembled = assemble(run.config, configured_method(run.config, catalog), 3, predict.torch.device("meta"))
        alone = predict.predict_training(run.config, assembled, context=7)
        assert row.memory == alone
        assert row.figure == alone.process

    @pytest.mark.slow
    def test_what_is_predicted_beside_changes_no_figure(self, catalog: Catalog) -> None:
        runs = plan(TINY, ["fpt", "norm"], None, catalog)
        plain = predict_rows(runs, 3, Extras())
        full = predict_rows(runs, 3, Extras(budget=600 * 2**20, inference=True, savings=True))
        assert [row.memory for row in full] == [row.memory for row in plain]

    @pytest.mark.slow
    def test_savings_are_what_the_other_setting_is_predicted_to_take_less(self, catalog: Catalog) -> None:
        eager = replace(TINY, attention_kernel="eager", preload=False)
        (row,) = predict_rows(plan(eager, ["fpt"], None, catalog), 3, Extras(savings=True))
        changes: dict[str, dict[str, Any]] = {
            "attention-kernel=fused": {"attention_kernel": "fused"},
            "precision=bf16": {"precision": "bf16"},
            "checkpointing": {"checkpointing": True},
            "preload": {"preload": True},
        }
        for name, change in changes.items():
            (other,) = predict_rows(plan(replace(eager, **change), ["fpt"], None, catalog), 3, Extras())
            assert row.figure is not None
            assert other.figure is not None
            assert row.savings is not None
            assert row.savings[name] == row.figure - other.figure, name

    def test_what_is_on_already_saves_nothing_that_could_be_named(self, catalog: Catalog) -> None:
        on = replace(TINY, precision="bf16", checkpointing=True)
        (row,) = predict_rows(plan(on, ["norm"], None, catalog), 3, Extras(savings=True))
        assert row.savings is not None
        assert set(row.savings.values()) == {None}

    def test_a_method_that_breaks_is_a_row_and_the_others_stand(self, tmp_path: Path) -> None:
        (tmp_path / "broken.py").write_text(BROKEN)
        runs = plan(TINY, ["broken", "linear"], None, Catalog([tmp_path]))
        broken, linear = predict_rows(runs, 3, Extras(), folders=[tmp_path])
        assert (broken.refused, broken.failed, broken.memory) == ("ZeroDivisionError: by design", True, None)
        assert linear.memory is not None

    def test_processes_predict_what_one_does(self, catalog: Catalog) -> None:
        runs = plan(TINY, ["lora", "norm", "linear"], None, catalog)
        with open_workers(2) as workers:
            spread = predict_rows(runs, 3, Extras(inference=True), workers=workers)
        assert spread == predict_rows(runs, 3, Extras(inference=True))


@given(base=st.integers(0, 500), rise=st.integers(1, 50), budget=st.integers(1, 2000), known=st.integers(1, 64))
def test_the_answer_fits_and_one_more_does_not(base: int, rise: int, budget: int, known: int) -> None:
    def need(size: int) -> int:
        return base + rise * size

    fitting = [size for size in range(1, LARGEST + 1) if need(size) <= budget]
    assert largest_batch_size(need, budget, predictions={known: need(known)}) == max(fitting, default=0)


def test_few_predictions_are_needed() -> None:
    asked: list[int] = []

    def need(size: int) -> int:
        asked.append(size)
        return 1000 + 37 * size

    assert largest_batch_size(need, 30_000, predictions={16: 1000 + 37 * 16}) == (30_000 - 1000) // 37
    assert len(asked) <= 6
