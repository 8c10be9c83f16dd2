"""From keywords and a run file to a request."""

from __future__ import annotations

from pathlib import Path

import pytest

from petlbench.api.requests import plan_run
from petlbench.core.errors import InputError

FILE = """
method = "lora"
dataset = "digits"
backbone = "petlbench_micro"
image_size = 32
threads = 1
[method_settings]
rank = 2
alpha = 6
[training]
epochs = 3
lr = 0.5
"""


def test_what_is_set_joins_the_tables_of_a_run_file_key_by_key(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(FILE)
    values = {"method_settings": {"rank": 3}, "training": {"epochs": 1}}
    run, _ = plan_run(None, None, tmp_path / "run.toml", values)
    assert (run.config.method_settings["rank"], run.config.method_settings["alpha"]) == (3, 6)
    assert (run.config.training.epochs, run.config.training.lr) == (1, 0.5)


def test_an_option_goes_before_a_run_file_and_none_is_given_twice(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(FILE)
    run, _ = plan_run(None, None, tmp_path / "run.toml", {"epochs": 2})
    assert (run.config.training.epochs, run.config.training.lr) == (2, 0.5)
    for origin, values in (("run.toml", {}), (None, {"method": "lora", "dataset": "digits"})):
        (tmp_path / "run.toml").write_text(f"epochs = 1\n{FILE}")
        file = None if origin is None else tmp_path / "run.toml"
        twice = {} if origin else {"epochs": 1, "training": {"epochs": "abc"}}
        with pytest.raises(InputError, match="epochs twice: 1 and, as training.epochs, (3|abc)"):
            plan_run(None, None, file, {**values, **twice})
