"""Tables of methods from stored results: figures, marks, empty cells, settings that do not mix."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.metrics.efficiency import pme, ppe
from petlbench.report.build import build_report
from petlbench.report.document import Cell
from petlbench.report.formats import Document
from petlbench.report.render import markdown
from petlbench.report.spec import ReportRequest, load_report
from tests.report.stored import store, store_predicted, store_study

GOLDEN = Path(__file__).parents[2] / "golden" / "report_table1.md"


def made(output: Path, report: str = "table1", **asked: Any) -> Document:
    catalog = Catalog()
    return build_report(load_report(catalog, report), ReportRequest(str(output), **asked), catalog)


def cell(document: Document, row: str, column: str, table: int = 0) -> Cell:
    rows = {one.key: one for one in document.tables[table].rows}
    return rows[row].cells[column]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Three methods on two datasets with three seeds."""
    scores = {"full": 0.95, "linear": 0.85, "fpt": 0.93}
    for method, score in scores.items():
        for dataset in ("isic2018", "covid"):
            for seed in range(3):
                store(tmp_path, method, dataset, seed, auc=score + 0.01 * seed - (0.02 if dataset == "covid" else 0))
    return tmp_path


def test_a_table_looks_as_it_did(study: Path) -> None:
    # Comparisons of made-up runs without predictions are left out: they have a test of their own.
    text = markdown.render_table(made(study).tables[0])
    assert text == GOLDEN.read_text(encoding="utf-8").rstrip("\n")


def test_ppe_and_pme_follow_from_the_columns_beside_them(study: Path) -> None:
    document = made(study)
    for row in document.tables[0].rows:
        average, memory = (row.cells[key].value or math.nan for key in ("average", "memory"))
        learnable, full = (row.cells["learnable"].value or math.nan), cell(document, "full", "memory").value or math.nan
        assert row.cells["ppe"].value == pytest.approx(ppe(average, learnable / 100))
        assert row.cells["pme"].value == pytest.approx(pme(average, memory / full))


def test_rows_and_columns_stand_in_the_order_of_the_report(study: Path) -> None:
    store(study, "aardvark", "another", 0)
    table = made(study).tables[0]
    assert [row.key for row in table.rows] == ["full", "linear", "fpt", "aardvark"]
    assert [column.key for column in table.columns if column.key in ("isic2018", "covid", "another")] == [
        "isic2018",
        "covid",
        "another",
    ]


def test_without_full_there_is_no_pme_and_the_command_that_makes_it(tmp_path: Path) -> None:
    store(tmp_path, "linear", precision="bf16", training={"batch_size": 8})
    document = made(tmp_path)
    empty = cell(document, "linear", "pme")
    assert empty.value is None
    command = (
        "petlbench run --method full --dataset digits --split random "
        "--backbone vit_tiny_patch16_224.augreg_in21k_ft_in1k "
        f"--image-size 224 --epochs 2 --batch-size 8 --precision bf16 --device cpu --threads 1 --output {tmp_path}"
    )
    assert empty.reason == "there is no run of full in this setting"
    assert "PME is empty: there is no run of full in this setting." in document.tables[0].notes
    assert document.tables[0].commands == [command]


def test_full_of_another_setting_is_no_reference(tmp_path: Path) -> None:
    store(tmp_path, "linear", training={"batch_size": 8})
    store(tmp_path, "full", training={"batch_size": 16})
    assert cell(made(tmp_path, where={"training.batch_size": "8"}), "linear", "pme").value is None


@pytest.mark.parametrize(
    ("status", "shown"),
    [("oom", "out of memory"), ("failed", "failed"), ("timeout", "timeout"), ("unsupported", "unsupported")],
)
def test_an_empty_cell_says_why(tmp_path: Path, status: str, shown: str) -> None:
    store(tmp_path, "full")
    store(tmp_path, "linear")
    store(tmp_path, "linear", "covid")
    store(tmp_path, "full", "covid", status=status, message="what it said")
    document = made(tmp_path)
    empty = cell(document, "full", "covid")
    assert (empty.value, empty.text, empty.reason) == (None, shown, f"{shown}: what it said")
    assert f"Empty, {shown}: what it said: Full fine-tuning on covid." in document.tables[0].notes
    assert cell(document, "full", "average").value is None
    assert "petlbench bench --method full --dataset covid --seed 0" in " ".join(document.tables[0].commands)


def test_a_run_on_a_dataset_without_a_test_split_has_no_score_and_says_so(tmp_path: Path) -> None:
    store(tmp_path, "linear")
    store(tmp_path, "full")
    run = store(tmp_path, "full", "covid")
    file = tmp_path / run.run_id / "result.json"
    document = json.loads(file.read_text())
    del document["metrics"]["test"]
    file.write_text(json.dumps(document))
    assert cell(made(tmp_path), "full", "covid").reason == "the dataset has no test split"


def test_what_a_study_asked_for_and_nobody_ran_is_a_row(tmp_path: Path) -> None:
    done = store(tmp_path, "full")
    runs = [
        {"method": "full", "dataset": "digits", "seed": 0, "run_id": done.run_id, "status": "finished"},
        {"method": "vpt", "dataset": "digits", "seed": 0, "status": "unsupported", "error": "it cannot adapt this"},
        {"method": "lora", "dataset": "digits", "seed": 0},
    ]
    store_study(tmp_path, "mine", runs)
    document = made(tmp_path, study="mine")
    assert cell(document, "vpt", "digits").reason == "unsupported: it cannot adapt this"
    assert cell(document, "lora", "digits").text == "not run"


def test_a_study_leaves_other_results_out(study: Path) -> None:
    other = store(study, "lora", "covid", 0)
    store_study(study, "one", [{"method": "lora", "dataset": "covid", "seed": 0, "run_id": other.run_id}])
    document = made(study, study="one")
    assert [row.key for row in document.tables[0].rows] == ["lora"]
    # Memory is one quantity whatever the study: full's is in the same folder.
    assert cell(document, "lora", "pme").value == pytest.approx(pme(90, 0.9))
    with pytest.raises(InputError, match="--study two") as caught:
        made(study, study="two")
    assert caught.value.hint == "known: one"


def test_a_study_takes_in_its_parts(study: Path) -> None:
    for number, method in enumerate(("lora", "vpt")):
        part = store(study, method, "covid", 0)
        store_study(study, f"both.{number}", [{"method": method, "dataset": "covid", "seed": 0, "run_id": part.run_id}])
    assert {row.key for row in made(study, study="both").tables[0].rows} == {"lora", "vpt"}


def test_a_cell_with_fewer_runs_than_others_says_so(study: Path) -> None:
    store(study, "lora", "covid", 0)
    assert cell(made(study), "lora", "covid").flags == ("1 of 3 runs",)


def test_two_precisions_never_stand_in_one_table(tmp_path: Path) -> None:
    store(tmp_path, "full", precision="fp16", attention_kernel="eager")
    store(tmp_path, "linear", precision="bf16", attention_kernel="fused")
    with pytest.raises(InputError, match="2 settings that no table may mix") as caught:
        made(tmp_path)
    assert "precision=fp16, attention_kernel=eager (1 results)" in caught.value.message
    assert "--preset as-published" in caught.value.hint
    assert [row.key for row in made(tmp_path, preset="as-published").tables[0].rows] == ["full"]
    assert [row.key for row in made(tmp_path, preset="best-practice").tables[0].rows] == ["linear"]


def test_a_setting_that_no_result_has_names_what_there_is(study: Path) -> None:
    with pytest.raises(InputError, match="precision=bf16, attention_kernel=fused") as caught:
        made(study, preset="best-practice")
    assert "precision=fp32, attention_kernel=auto (18 results)" in caught.value.message


@pytest.mark.parametrize("key", ["image_size", "checkpointing", "device"])
def test_rows_are_alike_in_all_that_decides_memory(tmp_path: Path, key: str) -> None:
    other: dict[str, Any] = {"image_size": 384, "checkpointing": True, "device": "cuda"}
    store(tmp_path, "full")
    store(tmp_path, "linear", **{key: other[key]})
    with pytest.raises(InputError, match=f"{key}="):
        made(tmp_path)


def test_two_configurations_of_a_method_are_not_averaged(tmp_path: Path) -> None:
    store(tmp_path, "linear", training={"lr": 1e-3})
    store(tmp_path, "linear", training={"lr": 1e-2})
    with pytest.raises(InputError, match="several configurations on digits") as caught:
        made(tmp_path)
    assert re.search(r"--where training\.lr=0\.0?01", caught.value.hint)  # of whichever run comes first
    assert cell(made(tmp_path, where={"training.lr": "1e-2"}), "linear", "digits").value == pytest.approx(90)


def test_the_split_of_another_fold_is_a_repeat(tmp_path: Path) -> None:
    for fold, score in enumerate((0.8, 0.9)):
        store(tmp_path, "linear", split=f"kfold:5/{fold}", auc=score)
    found = cell(made(tmp_path), "linear", "digits")
    assert found.value == pytest.approx(85)
    assert found.std == pytest.approx(100 * math.sqrt(0.005))


def test_numbers_of_a_column_are_rounded_alike_by_their_spread(tmp_path: Path) -> None:
    for seed, score in enumerate((0.80, 0.90, 0.97)):
        store(tmp_path, "linear", "digits", seed, auc=score)
    for seed, score in enumerate((0.9012, 0.9014, 0.9016)):
        store(tmp_path, "full", "digits", seed, auc=score)
    document = made(tmp_path)
    assert cell(document, "linear", "digits").text == "89 ± 9"
    assert cell(document, "full", "digits").text == "90 ± 0"
    document = made(tmp_path, decimals=2)
    assert [cell(document, name, "digits").text for name in ("full", "linear")] == ["90.14 ± 0.02", "89.00 ± 8.54"]


def test_preloading_has_columns_of_its_own(study: Path) -> None:
    document = made(study)
    assert cell(document, "fpt", "preloading_memory").value == 300
    assert cell(document, "fpt", "cache").value == 5
    assert cell(document, "full", "cache").reason == "nothing is preloaded"


def test_columns_on_request(study: Path) -> None:
    trial = store(study / "trials", "fpt", "covid", 7, seconds=3600)
    reads = [json.dumps({"dataset": "covid", "run_id": one.name}) for one in study.glob("fpt-*")]
    again = [json.dumps(json.loads(read) | {"continued": "nothing was kept of the reading before"}) for read in reads]
    (study / "test_reads.jsonl").write_text("\n".join([*reads, *reads, *again, '{"cut off']))
    document = made(study, columns=("gap", "last", "hours", "search_hours", "disk", "trials", "test_reads"))
    found = {key: cell(document, "fpt", key) for key in ("gap", "best_val", "last_val", "trials", "test_reads")}
    assert {key: one.text for key, one in found.items()} == {
        "gap": "0.0",
        "best_val": "60.0",
        "last_val": "60.0",
        "trials": "1",
        "test_reads": "12",
    }
    assert cell(document, "fpt", "search_hours").value == pytest.approx(1 + 6 * 100 / 3600)
    assert cell(document, "full", "search_hours").reason == "no trial of a search is stored"
    assert (cell(document, "fpt", "disk").value or 0) > 5
    assert trial.run_id not in {run["run_id"] for run in document.runs}
    with pytest.raises(InputError, match="unknown column 'gaps'"):
        made(study, columns=("gaps",))


def test_shared_preloading_counts_for_every_run(tmp_path: Path) -> None:
    store(tmp_path, "fpt", seed=0, preload_seconds=50)
    store(tmp_path, "fpt", seed=1, preload_seconds=0)
    assert cell(made(tmp_path, columns=("time",)), "fpt", "time").value == 150


def test_a_row_is_on_a_later_front_when_another_beats_it_in_everything(study: Path) -> None:
    for dataset in ("isic2018", "covid"):
        store(study, "lora", dataset, 0, auc=0.80, memory=5000, seconds=500)
    document = made(study)
    assert [cell(document, key, "front").value for key in ("full", "linear", "fpt", "lora")] == [1, 1, 1, 2]


def test_variants_take_the_runs_of_their_settings(tmp_path: Path) -> None:
    from tests.report.stored import FPT_SETTINGS

    store(tmp_path, "fpt")
    store(tmp_path, "fpt", preload=False, auc=0.8)
    store(tmp_path, "fpt", preload=False, auc=0.7, method_settings={**FPT_SETTINGS, "token_selection": False})
    document = made(tmp_path, "ablation")
    found = {row.title: row.cells["digits"].text for row in document.tables[0].rows}
    assert found == {
        "side network alone, at full size": "not run",
        "+ backbone with fusion module": "not run",
        "+ asymmetric input": "70.00",
        "+ important token selection": "80.00",
        "+ preloading": "90.00",
    }
    assert any("petlbench bench --report ablation --dataset digits" in one for one in document.tables[0].commands)


def test_methods_are_compared_where_predictions_are_kept(tmp_path: Path) -> None:
    for dataset in ("isic2018", "covid", "digits"):
        for seed in range(3):
            store_predicted(tmp_path, "full", dataset, seed, 3.0)
            store_predicted(tmp_path, "linear", dataset, seed, 0.1)
    document = made(tmp_path)
    comparison = next(table for table in document.tables if table.key == "comparison")
    (row,) = comparison.rows
    assert row.key == "linear"
    assert row.cells["verdict"].text == "separable"
    assert row.cells["effect"].high is not None
    assert row.cells["effect"].high < 0
    assert any("0.25" in note for note in document.notes), "the smallest p of a test on three datasets"
    assert [figure.key for figure in document.figures] == ["tradeoff", "comparison"]
    assert cell(document, "full", "digits").low is not None


def test_signed_ranks_are_shown_where_they_can_say_something(tmp_path: Path) -> None:
    for number in range(6):
        for seed in range(2):
            store_predicted(tmp_path, "full", f"d{number}", seed, 3.0)
            store_predicted(tmp_path, "linear", f"d{number}", seed, 0.1)
    notes = made(tmp_path).notes
    assert any("0.031. Each row's p against" in note and note.endswith(": Linear probing 0.031.") for note in notes), (
        notes
    )


def test_a_table_says_which_kappa_it_shows(tmp_path: Path) -> None:
    for dataset, form in (("isic2018", "unweighted"), ("covid", "with quadratic weights")):
        store(tmp_path, "full", dataset, score_forms={"kappa": form})
    caption = made(tmp_path, metric="kappa").tables[0].caption
    assert "Kappa (unweighted on isic2018; with quadratic weights on covid) of the test split" in caption, caption


def test_one_seed_is_too_few(tmp_path: Path) -> None:
    store_predicted(tmp_path, "full", "digits", 0, 3.0)
    store_predicted(tmp_path, "linear", "digits", 0, 0.5)
    comparison = next(table for table in made(tmp_path).tables if table.key == "comparison")
    assert comparison.rows[0].cells["verdict"].text == "too few"
    ranks = {column.key: column.rank for column in comparison.columns}
    assert min(ranks["elsewhere_interval"], ranks["elsewhere_verdict"]) > max(ranks["p_better"], ranks["detectable"])
    assert comparison.notes


def test_what_papers_print_stands_beside_and_never_within(study: Path) -> None:
    document = made(study, compare=True)
    plain = made(study)
    assert document.tables[0] == plain.tables[0]
    beside = {table.key: table for table in document.tables}["papers_miccai2024"]
    (row,) = [row for row in beside.rows if row.key == "fpt"]
    assert [row.cells[f"isic2018_{part}"].text for part in ("ours", "published", "difference")] == [
        "94.0 ± 1.0",
        "93.88 ± 0.60",
        "+0.12",
    ]
    assert not any(column.key.startswith("average") for column in beside.columns), "another average"
    assert "another" not in beside.caption
    assert "vit_base_patch16_384 at 512 pixels" in beside.caption


def test_baselines_of_a_stored_audit_are_standing_rows(study: Path) -> None:
    (study / "audits").mkdir()
    baselines = [
        {"name": "metadata", "features": "", "looks": False, "auc": 0.97, "low": 0.95, "high": 0.99, "accuracy": 0.9},
        {"name": "pixels", "features": "", "looks": True, "auc": 0.6, "low": 0.5, "high": 0.7, "accuracy": 0.5},
    ]
    audit = {"dataset": "covid", "verdicts": ["shortcut"], "baselines": [{**one, "refused": ""} for one in baselines]}
    (study / "audits" / "covid.json").write_text(json.dumps(audit))
    document = made(study)
    standing = [row for row in document.tables[0].rows if row.kind == "baseline"]
    assert [row.title for row in standing] == ["metadata", "pixels"]
    assert standing[0].cells["covid"].text == "97.0"
    assert all(one.cells["covid"].mark == "" for one in standing)
    assert next(column.title for column in document.tables[0].columns if column.key == "covid").endswith("(shortcut)")
    assert cell(document, "full", "average_without_shortcuts").value == cell(document, "full", "isic2018").value


def test_no_results_and_damaged_ones_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        made(tmp_path / "nowhere")
    with pytest.raises(InputError, match="there are no results in"):
        made(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        made(tmp_path)


def test_what_is_damaged_is_named_and_counted_and_the_rest_is_shown(study: Path) -> None:
    """Odd neighbours, a damaged study, audit and log of readings: none of them takes the report down."""
    whole = made(study, columns=("test_reads",)).tables[0].rows
    for number, text in enumerate(("{}", "[]", "null", "{", json.dumps({"run_id": 3, "config": []}))):
        (study / f"full-odd{number}").mkdir()
        (study / f"full-odd{number}" / "result.json").write_text(text)
    (study / "full-odd9" / "result.json").mkdir(parents=True)
    for folder, text in (("studies", "[1]"), ("audits", '{"dataset": "covid", "verdicts": 3}')):
        (study / folder).mkdir()
        (study / folder / "covid.json").write_text(text)
    (study / "test_reads.jsonl").write_text('[]\n{"run_id": 3}\n{')
    document = made(study, columns=("test_reads",))
    assert document.tables[0].rows == whole
    (note,) = [note for note in document.notes if note.startswith("Passed over as damaged, 7: ")]
    assert "full-odd0" in note
    assert "covid.json is no audit" in note


def test_damaged_predictions_of_one_run_are_named_and_the_rest_is_compared(tmp_path: Path) -> None:
    for method, strength in (("full", 3.0), ("linear", 1.0)):
        for seed in (0, 1):
            result = store_predicted(tmp_path, method, "covid", seed, strength)
    (tmp_path / result.run_id / "predictions.parquet").write_bytes(b"PAR1")
    document = made(tmp_path)
    assert cell(document, "linear", "effect", table=1).value is not None
    (note,) = [note for note in document.notes if note.startswith("Passed over as damaged, 1: ")]
    assert result.run_id in note


def test_a_score_below_zero_has_no_ppe_and_pme(tmp_path: Path) -> None:
    result = store(tmp_path, "full")
    file = tmp_path / result.run_id / "result.json"
    document = json.loads(file.read_text())
    document["metrics"]["test"]["kappa"] = -0.2
    file.write_text(json.dumps(document))
    report = made(tmp_path, metric="kappa")
    assert cell(report, "full", "average").value == pytest.approx(-20)
    assert {cell(report, "full", name).text for name in ("ppe", "pme")} == {"–"}
    assert "below zero" in cell(report, "full", "ppe").reason


def test_rows_without_any_run_are_empty_and_the_command_of_all_is_named(study: Path) -> None:
    for run in study.glob("fpt-*"):
        shutil.rmtree(run)
    document = made(study, "ablation")
    assert len(document.tables[0].rows) == 5
    (command,) = document.tables[0].commands
    assert command.startswith("petlbench bench --report ablation --dataset isic2018,covid --seed 0,1,2 --split random ")


def test_commands_split_each_dataset_as_its_runs_do(tmp_path: Path) -> None:
    for dataset, split in (("covid", "official"), ("ddsm", "random"), ("isic2018", "official")):
        store(tmp_path, "full", dataset, split=split, split_seed=3 * (dataset == "ddsm"))
    store(tmp_path, "linear", "isic2018", split="official", split_seed=0)
    commands = made(tmp_path).tables[0].commands
    assert sorted(command.partition(" --backbone")[0] for command in commands) == [
        "petlbench bench --method linear --dataset covid --seed 0 --split official",
        "petlbench bench --method linear --dataset ddsm --seed 0 --split random --split-seed 3",
    ]


def test_the_interval_of_one_run_says_what_it_leaves_out(tmp_path: Path) -> None:
    store_predicted(tmp_path, "linear", "covid", 0, 1.0)
    store_predicted(tmp_path, "full", "covid", 0, 2.0)
    store_predicted(tmp_path, "full", "covid", 1, 2.0)
    document = made(tmp_path)
    note = "one run: without what another seed would give"
    assert (note in cell(document, "linear", "covid").flags, note in cell(document, "full", "covid").flags) == (
        True,
        False,
    )
    assert any(line.startswith("One run: without what another seed would give: ") for line in document.tables[0].notes)


def test_commands_name_the_folders_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "my own").mkdir()
    for method, dataset in (("full", "covid"), ("full", "ddsm"), ("linear", "covid")):
        store(tmp_path / "results", method, dataset)
    catalog = Catalog([tmp_path / "my own"])
    request = ReportRequest(str(tmp_path / "results"))
    (command,) = build_report(load_report(catalog, "table1"), request, catalog).tables[0].commands
    assert f" --catalog '{tmp_path / 'my own'}' --output " in command
