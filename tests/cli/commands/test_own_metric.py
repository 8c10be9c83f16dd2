"""A metric of the user's own, in one file: in the result, in the curve, in the list and in a report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

METRIC = """
import numpy as np
import petlbench as pb


def brier(labels, logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    return ((probabilities - np.eye(logits.shape[1])[labels]) ** 2).sum(axis=1).mean()


BRIER = pb.Metric(name="brier", title="Brier score", direction="lower", compute=brier)
"""


@pytest.mark.parametrize("place", ["brier.py", "metrics/brier.py"])
def test_one_file_is_enough(
    cli: Callable[..., Any], quick: Callable[..., list[str]], tmp_path: Path, place: str
) -> None:
    file = tmp_path / "mine" / place
    file.parent.mkdir(parents=True)
    file.write_text(METRIC)
    own = ("--catalog", tmp_path / "mine")
    listed = cli("list", "metrics", *own, "--json").document["items"]
    assert [item["direction"] for item in listed if item["name"] == "brier"] == ["lower"]
    assert {"auc", "kappa", "loss"} < {item["name"] for item in listed}
    for method in ("linear", "bitfit"):
        done = cli(*quick(method=method, tracking_uri="none"), *own, "--json")
        assert done.status == 0, done.err
        assert 0 < done.document["metrics"]["test"]["brier"] < 2
        assert done.document["curve"][0]["val_brier"] == done.document["metrics"]["val"]["brier"]
        assert list(done.document["metrics"]["test"])[:2] == ["auc", "auc_logits"]
        assert "brier" not in done.document["intervals"]["test"]
    shown = cli("report", "table1", "--results", "results", "--metric", "brier", *own, "--format", "json")
    assert shown.status == 0, shown.err
    table = json.loads(shown.out)["tables"][0]
    [column] = [column for column in table["columns"] if column["key"] == "pictures"]
    assert column["better"] == "lower"
    assert "Brier score" in table["caption"]
    cells = [row["cells"]["pictures"] for row in table["rows"]]
    best = min((cell for cell in cells if cell["value"] is not None), key=lambda cell: cell["value"])
    assert best["mark"] == "best"


def test_a_metric_that_is_not_there_or_no_fraction_is_refused(refused: Callable[..., Any], here: Path) -> None:
    from tests.report.stored import store

    store(here / "results", "full")
    assert "auc" in refused("report", "table1", "--results", "results", "--metric", "au")["hint"]
    assert "nats" in refused("report", "table1", "--results", "results", "--metric", "loss")["message"]


def test_a_metric_may_not_hide_what_a_result_has(refused: Callable[..., Any], quick: Any, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x.py").write_text(METRIC.replace('name="brier"', 'name="support"'))
    arguments = quick(tracking_uri="none", catalog=tmp_path / "mine")
    assert refused(*arguments)["kind"] == "duplicate_name"
