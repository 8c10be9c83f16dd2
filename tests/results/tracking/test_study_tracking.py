"""What MLflow is told of runs that have ended, and of a whole study."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest

from petlbench.core.errors import InputError
from petlbench.metrics.efficiency import pme, ppe
from petlbench.results.result import write_result
from petlbench.results.stored import Stored
from petlbench.results.table import Results
from petlbench.results.tracking.backfill import track_results, track_study
from petlbench.results.tracking.read import read_tracked
from petlbench.results.tracking.store import Store
from tests.results.tracking.results import AUC, make, store, write_study


def client_of(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def uri_of(output: Path) -> str:
    return f"sqlite:///{output}/mlflow.db"


def runs_of(uri: str, experiment: str) -> dict[str, Any]:
    client = client_of(uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs = client.search_runs([found.experiment_id])
    assert len({run.info.run_name for run in runs}) == len(runs), "a run is there twice"
    return {run.info.run_name: run for run in runs}


# Stands for a report: the last argument is the folder that a program writes to.
PAGE = """
import pathlib, sys
def main():
    if sys.argv[1] == "fail":
        sys.exit("some line\\nno such report")
    pathlib.Path(sys.argv[-1], sys.argv[1] + ".html").write_text("a page")
"""


def check_study(uri: str, output: Path, tmp_path: Path) -> None:
    """Three seeds of one method, one of another, a failed run: sent, summed up, and read again."""
    seeds = [make(seed=seed) for seed in AUC]
    others = [make("linear"), make("linear", seed=1, status="failed", error={"kind": "x", "message": "y", "hint": ""})]
    store(output, *seeds, *others)
    first = track_study(uri, output, "table-2", [*seeds, *others])
    assert (sorted(first.sent), first.error) == (sorted(one.run_id for one in (*seeds, *others)), None)
    again = track_study(uri, output, "table-2", [*seeds, *others])
    assert (again.sent, len(again.present), again.error) == ([], 5, None)
    runs, client = runs_of(uri, "table-2"), client_of(uri)
    assert set(runs) == {"fpt on digits", "linear on digits", "table", *(one.run_id for one in (*seeds, *others))}
    parent, child = runs["fpt on digits"], runs[seeds[1].run_id]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (parent.info.status, child.info.status) == ("FINISHED", "FINISHED")
    assert runs[others[1].run_id].info.status == "FAILED"
    assert parent.data.metrics["test_auc_mean"] == pytest.approx(0.8)
    assert parent.data.metrics["test_auc_std"] == pytest.approx(stdev(AUC.values()))
    assert runs["linear on digits"].data.metrics["runs_failed"] == 1
    assert "test_auc_std" not in runs["linear on digits"].data.metrics
    assert child.data.params["training.lr"] == "0.001"
    assert [point.step for point in client.get_metric_history(child.info.run_id, "val_auc")] == [1, 2]
    assert child.info.end_time - child.info.start_time == pytest.approx(2000, abs=1)
    check_table(client, runs["table"].info.run_id, tmp_path)
    read = {document["run_id"]: document for document in read_tracked(uri, "table-2")}
    assert read == {one.run_id: json.loads(json.dumps(one.document())) for one in (*seeds, *others)}


def check_table(client: Any, mlflow_run_id: str, tmp_path: Path) -> None:
    import mlflow

    mlflow.set_tracking_uri(client.tracking_uri)  # MLflow itself forgets which client it was asked of
    table = client.load_table(client.get_run(mlflow_run_id).info.experiment_id, "table.json", [mlflow_run_id])
    assert list(table["method"]) == ["fpt", "linear"]
    assert list(table["seeds"]) == [3, 1]
    folder = Path(client.download_artifacts(mlflow_run_id, "study", str(tmp_path)))
    assert sorted(file.name for file in folder.iterdir()) == ["table-2.csv", "table-2.json", "table-2.md"]
    rows = json.loads((folder / "table-2.json").read_text())
    assert rows[0]["ppe"] == pytest.approx(fmean(ppe(auc, 0.01) for auc in AUC.values()))
    assert rows[1]["unfinished"] == 1
    assert (folder / "table-2.md").read_text().splitlines()[2].startswith("| fpt | digits | 3 | 0 | 0.8 | 0.1 |")
    assert (folder / "table-2.csv").read_text().startswith("method,dataset,seeds,unfinished,test_auc,")


def test_a_study_is_shown_and_read_again(output: Path, tmp_path: Path) -> None:
    check_study(uri_of(output), output, tmp_path)


def test_a_finished_run_of_another_study_appears_in_this_one_too(output: Path) -> None:
    result = make()
    store(output, result)
    track_study(None, output, "first", [result])
    track_study(None, output, "second", [result])
    assert result.run_id in runs_of(uri_of(output), "first")
    assert result.run_id in runs_of(uri_of(output), "second")


def test_a_result_whose_reference_came_later_is_sent_again_into_the_same_record(output: Path) -> None:
    result, reference = make(), make("full")
    store(output, result)
    track_study(None, output, "study", [result])
    assert "pme" not in runs_of(uri_of(output), "study")[result.run_id].data.metrics
    before = (output / result.run_id / "result.json").read_bytes()
    store(output, reference)
    assert track_study(None, output, "study", [result]).sent == [result.run_id]
    expected = pme(AUC[0], 1.0)
    assert runs_of(uri_of(output), "study")[result.run_id].data.metrics["pme"] == pytest.approx(expected)
    assert track_study(None, output, "study", [result]).sent == []
    assert (output / result.run_id / "result.json").read_bytes() == before
    both = Results.of(Stored(one.document()) for one in (result, reference))
    assert both.runs[0].figures["pme"] == pytest.approx(expected)


def test_a_result_of_another_attempt_is_another_record(output: Path) -> None:
    result = make()
    store(output, result)
    track_results(None, output)
    rerun = result.model_copy(update={"timing": {"total": 3.0}})
    write_result(output / result.run_id, rerun)
    assert track_results(None, output).sent == [result.run_id]
    client = client_of(uri_of(output))
    experiment = client.get_experiment_by_name("petlbench").experiment_id
    assert len(client.search_runs([experiment])) == 2
    [document] = read_tracked(uri_of(output), "petlbench")
    assert document["timing"]["total"] == 3.0


def test_results_go_to_the_studies_that_want_them(output: Path) -> None:
    one, two, lone = make(), make(seed=1), make("linear")
    store(output, one, two, lone)
    write_study(output, "table-2", one, two)
    write_study(output, "figure-3", one)
    (output / "studies" / "damaged.json").write_text("{")
    tracked = track_results(None, output)
    assert sorted(tracked.sent) == sorted([one.run_id, one.run_id, two.run_id, lone.run_id])
    assert set(runs_of(uri_of(output), "figure-3")) == {"fpt on digits", one.run_id}
    assert set(runs_of(uri_of(output), "petlbench")) == {lone.run_id}
    assert track_results(None, output, [one.run_id]).present == [one.run_id, one.run_id]


@pytest.mark.slow
def test_runs_that_differ_in_more_than_their_seed_have_no_mean(output: Path) -> None:
    one, two = make(), make(seed=1)
    two = two.model_copy(update={"config": two.config.model_copy(update={"image_size": 128})})
    store(output, one, two)
    track_study(None, output, "mixed", [one, two])
    metrics = runs_of(uri_of(output), "mixed")["fpt on digits"].data.metrics
    assert metrics == {"runs_finished": 2}


@pytest.mark.slow
def test_two_parents_that_a_race_has_made_become_one(output: Path) -> None:
    result = make()
    store(output, result)
    opened = Store(uri_of(output), output)
    experiment = opened.experiment("race")
    tags = {"petlbench.kind": "group", "petlbench.group": "fpt on digits"}
    first = opened.create(experiment, name="fpt on digits", tags=tags, began=1000).info.run_id
    second = opened.create(experiment, name="fpt on digits", tags=tags, began=2000).info.run_id
    below = opened.create(experiment, name="x", tags={"mlflow.parentRunId": second}).info.run_id
    track_study(None, output, "race", [result])
    runs = runs_of(uri_of(output), "race")
    assert runs["fpt on digits"].info.run_id == first
    assert {runs[name].data.tags["mlflow.parentRunId"] for name in ("x", result.run_id)} == {first}
    assert runs["x"].info.run_id == below


def test_a_store_that_is_away_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    result = make()
    store(tmp_path, result)
    (tmp_path / "file").write_text("")
    uri = f"sqlite:///{tmp_path}/file/mlflow.db"
    tracked = track_study(uri, tmp_path, "study", [result], page=["no_such_module"], patience=0.7)
    assert (tracked.sent, tracked.missing) == ([], [result.run_id])
    assert "FileExistsError" in (tracked.error or "")
    [record] = caplog.records
    assert "petlbench results track" in record.getMessage()


def test_the_page_of_a_study_stands_beside_its_table(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "page_program.py").write_text(PAGE)
    monkeypatch.syspath_prepend(tmp_path)
    result = make()
    result = result.model_copy(update={"digests": {"data": "0123" * 16}})
    store(output, result)
    for _ in range(2):  # a second time changes nothing
        assert track_study(None, output, "study", [result], page=["page_program", "overview"]).error is None
    runs, client = runs_of(uri_of(output), "study"), client_of(uri_of(output))
    assert [each.path for each in client.list_artifacts(runs["table"].info.run_id, "report")] == [
        "report/overview.html"
    ]
    assert [each.dataset.name for each in runs["fpt on digits"].inputs.dataset_inputs] == ["digits"]
    assert caplog.records == []
    assert track_study(None, output, "other", [result], page=["page_program", "fail"]).error is None
    [record] = caplog.records
    assert record.getMessage() == "the page of study 'other' for MLflow could not be made: no such report"


def test_a_study_without_a_finished_run_has_no_page(output: Path, caplog: pytest.LogCaptureFixture) -> None:
    failed = make(status="failed", error={"kind": "x", "message": "y", "hint": ""})
    store(output, failed)
    assert track_study(None, output, "study", [failed], page=["no_such_module"]).error is None
    assert caplog.records == []


def test_none_sends_nothing(tmp_path: Path) -> None:
    result = make()
    store(tmp_path, result)
    assert track_study("none", tmp_path, "study", [result]).sent == []
    assert track_results("none", tmp_path).missing == [result.run_id]
    with pytest.raises(InputError):
        track_results(None, tmp_path, ["nothing"])
    assert not (tmp_path / "mlflow.db").exists()


def test_reading_says_what_is_wrong(output: Path, tmp_path: Path) -> None:
    track_results(None, output)
    with pytest.raises(InputError) as caught:
        read_tracked(uri_of(output), "nothing")
    assert caught.value.kind == "unknown_experiment"
    assert "first" in caught.value.hint
    with pytest.raises(InputError) as caught:
        read_tracked(f"sqlite:///{tmp_path}/none.db", "first")
    assert caught.value.kind == "no_such_store"
    assert not (tmp_path / "none.db").exists()
    with pytest.raises(InputError) as caught:
        read_tracked(uri_of(output), "first")
    assert caught.value.kind == "no_results"
