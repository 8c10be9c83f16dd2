"""Runs as they are stored, seen as evidence; and a stored audit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from petlbench.core.errors import InputError
from petlbench.report.audits import read_audit
from petlbench.results.predictions import read_predictions


def write(file: Path) -> None:
    rows = [
        {"image_id": "a", "group": "p", "split": "test", "label": 1, "logits": [0.0, 1.5]},
        {"image_id": "b", "group": None, "split": "val", "label": 0, "logits": [9.0, 9.0]},
        {"image_id": "c", "group": None, "split": "test", "label": 0, "logits": [2.0, -1.0]},
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)


def test_predictions_are_read_as_they_were_written(tmp_path: Path) -> None:
    write(tmp_path / "predictions.parquet")
    found = read_predictions(tmp_path / "predictions.parquet")
    assert found is not None
    assert list(found.image_ids) == ["a", "c"]
    assert list(found.groups) == ["p", None]
    assert found.units == ["group p", "image c"]
    assert found.labels.tolist() == [1, 0]
    assert np.array_equal(found.logits, np.array([[0.0, 1.5], [2.0, -1.0]], np.float32))
    val = read_predictions(tmp_path / "predictions.parquet", "val")
    assert val is not None
    assert val.logits.tolist() == [[9.0, 9.0]]


def test_what_is_not_there_is_none_and_what_is_damaged_is_named(tmp_path: Path) -> None:
    assert read_predictions(tmp_path / "predictions.parquet") is None
    write(tmp_path / "predictions.parquet")
    assert read_predictions(tmp_path / "predictions.parquet", "external") is None
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nothing of the kind")
    with pytest.raises(InputError, match=r"broken\.parquet is damaged"):
        read_predictions(tmp_path / "broken.parquet")


def test_a_stored_audit(tmp_path: Path) -> None:
    baseline = {"name": "metadata", "features": "age", "looks": False, "auc": 0.95, "low": 0.93, "high": 0.97}
    refused = {"name": "pixels", "features": "", "looks": True, "refused": "too few"}
    document = {"dataset": "x", "verdicts": ["shortcut"], "baselines": [baseline, refused], "page": None}
    file = tmp_path / "audit.json"
    file.write_text(json.dumps(document))
    found = read_audit(file)
    assert (found.dataset, found.marks) == ("x", ("shortcut",))
    assert [one.auc for one in found.baselines] == [0.95, None]
    file.write_text("[]")
    with pytest.raises(InputError, match="is no audit"):
        read_audit(file)
    with pytest.raises(InputError, match="does not exist"):
        read_audit(tmp_path / "none.json")
