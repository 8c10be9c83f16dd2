"""How MLflow's pages show an experiment."""

from __future__ import annotations

import json
from pathlib import Path

from petlbench.core.text import shown
from petlbench.results.tracking.store import Store
from petlbench.results.tracking.view import page_address, view_tags


def test_the_saved_view_is_one_that_mlflow_reads() -> None:
    saved = json.loads(view_tags()["mlflow.sharedViewState.petlbench"])
    assert (type(saved["name"]), type(saved["createdAt"])) == (str, int)
    state = json.loads(saved["state"])
    assert "metrics.`test_auc_mean`" in state["selectedColumns"] == state["columnOrder"]


def test_the_address_is_that_of_a_server_alone_and_is_shown_whole() -> None:
    address = page_address("http://host:5000/", "7")
    assert address == "http://host:5000/#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey=petlbench"
    assert shown(address) == address
    assert "secret" not in page_address("http://me:secret@host:5000", "7")
    assert page_address("sqlite:////results/mlflow.db", "7") == ""


def test_an_experiment_of_an_older_version_gets_the_view(output: Path) -> None:
    store = Store(f"sqlite:///{output}/mlflow.db", output)
    experiment = store.client.create_experiment("old", tags={"mlflow.experimentKind": "mine"})
    assert store.experiment("old") == experiment
    tags = store.client.get_experiment(experiment).tags
    assert tags["mlflow.experimentKind"] == "mine"
    assert "mlflow.sharedViewState.petlbench" in tags
