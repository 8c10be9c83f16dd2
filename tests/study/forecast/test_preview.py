"""What a run's time depends on: everything but the seed, the learning rate and the weight decay."""

from __future__ import annotations

from typing import Any

from petlbench.core.config import RunConfig
from petlbench.study.forecast.preview import _alike
from petlbench.study.planned_run import PlannedRun
from tests.sweep.test_winner import OTHER, TRAINING


def test_each_field_that_can_change_a_time_is_part_of_its_key(plans: list[PlannedRun]) -> None:
    config = next(plan.config for plan in plans if plan.config is not None and plan.method == "linear")
    changed: dict[str, RunConfig] = {}
    for name, value in OTHER.items():
        changed[name] = config.model_copy(update={name: value})
    for name, value in {**TRAINING, "epochs": 3, "batch_size": 4}.items():
        update: dict[str, Any] = {"training": config.training.model_copy(update={name: value})}
        changed[f"training.{name}"] = config.model_copy(update=update)
    assert not [name for name, other in changed.items() if other == config]
    same = {name for name, other in changed.items() if _alike(other) == _alike(config)}
    assert same == {"seed", "draw", "training.lr", "training.weight_decay"}
    keys = [_alike(other) for name, other in changed.items() if name not in same]
    assert len(set(keys)) == len(keys)
