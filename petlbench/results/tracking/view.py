"""How MLflow's pages show an experiment: as one of trained models, with the columns that a comparison is read by."""

from __future__ import annotations

import json
import time

from petlbench.core.text import without_password

_KEY = "petlbench"
_VIEW_TAG = f"mlflow.sharedViewState.{_KEY}"
# A parent has means, a run its own figures; a column that nothing has is not shown.
_METRICS = (
    "test_auc_mean",
    "test_auc_std",
    "test_auc",
    "ppe_mean",
    "pme_mean",
    "learnable_ratio_mean",
    "memory_allocated_mean",
    "seconds_run_mean",
)
_COLUMNS = (*(f"metrics.`{name}`" for name in _METRICS), "attributes.`Dataset`", "attributes.`Source`")
_WIDTHS = {_COLUMNS[-2]: 180, _COLUMNS[-1]: 110}  # pixels; that of a dataset is 300 otherwise


def view_tags() -> dict[str, str]:
    """Tags of an experiment: trained models and no application, the main score, and a saved view with our columns."""
    now = int(1000 * time.time())
    state = json.dumps({"selectedColumns": _COLUMNS, "columnOrder": _COLUMNS, "columnWidths": _WIDTHS})
    return {
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.experiment.primaryMetric.name": "test_auc",
        "mlflow.experiment.primaryMetric.greaterIsBetter": "True",
        _VIEW_TAG: json.dumps({"name": _KEY, "createdAt": now, "updatedAt": now, "state": state}),
    }


def page_address(uri: str, experiment_id: str) -> str:
    """The address of an experiment's runs on a server's pages; empty for a store that is no server.

    It names the kind of work, since MLflow 3.17 asks no tag of the experiment and opens as for applications, and the
    saved view.
    """
    if not uri.startswith(("http://", "https://")):
        return ""
    place = f"experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={_KEY}"
    return f"{without_password(uri).rstrip('/')}/#/{place}"
