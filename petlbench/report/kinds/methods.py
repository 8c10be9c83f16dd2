"""Tables of methods, or of variants of a method: rows with score, parameters, memory and what weighs them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from petlbench.core.text import as_sentence
from petlbench.metrics.efficiency import REFERENCE
from petlbench.report.alignment import align
from petlbench.report.audits import add_baselines
from petlbench.report.cells import mark_rows
from petlbench.report.columns import make_columns
from petlbench.report.context import Context
from petlbench.report.document import Cell, Column, Row, Table
from petlbench.report.formats import Document
from petlbench.report.inputs import ReportInputs
from petlbench.report.kinds.comparison import compare_lines
from petlbench.report.kinds.cost import cost_figures
from petlbench.report.kinds.papers import compare_with_papers
from petlbench.report.kinds.roc import curve_figures
from petlbench.report.selection import check_alike, check_cells, common_settings
from petlbench.report.spec import ReportKind
from petlbench.report.tasks import tasks_of
from petlbench.results.stored import Stored

_MARKED = "Best bold, second underlined."
_PME = "PME refers to full fine-tuning in the same setting."
_MEANS = "Means of a row are of the figures shown: of each group, of the groups' means, and of all tasks."
_PRELOADING = "Preloading: the peak of computing frozen features once; feature cache: their size on the disk."
TIME_NOTE = "Time of a run: preloading, training and evaluation."
_FRONT = (
    "Front 1: no other row is at least as good in average, memory, learnable parameters and time of a run at once; "
    "front 2: only rows of front 1 are; and so on."
)
# Each stands behind the option of its name.
_OPTIONS = (
    *("shots", "train_fraction"),
    *("backbone", "weights", "image_size", "normalize", "training.epochs", "training.batch_size"),
    *("training.accumulate", "training.optimizer", "precision", "attention_kernel", "device"),
)
_DEFAULTS = {
    "shots": 0,
    "train_fraction": 1,
    "weights": "default",
    "normalize": "backbone",
    "training.accumulate": 1,
    "training.optimizer": "adamw",
    "precision": "fp32",
    "attention_kernel": "auto",
}
# What goes without saying in words.
_UNSAID = {name: _DEFAULTS[name] for name in ("weights", "shots", "train_fraction")}


def build(inputs: ReportInputs) -> Document:
    """Make the table of methods or variants, what papers print beside, and the comparison of rows."""
    main, context = main_table(inputs), inputs.context
    tables, figures, notes, verdict = compare_lines(inputs, context)
    papers: Sequence[Table] = ()
    if inputs.request.compare:
        runs = context.grid.all_runs
        settings = describe_settings(common_settings(runs)) if runs else "no runs"
        papers = compare_with_papers(inputs.card.name, main, context.grid, settings)
    figures = [*cost_figures(inputs), *figures]
    document = inputs.document([main, *papers, *tables], figures, notes)
    return replace(document, verdict=verdict, details=partial(curve_figures, inputs))


METHODS = ReportKind(name="methods", title="Methods on datasets", build=build, by_group=True, shows_cost=True)
VARIANTS = ReportKind(
    name="variants", title="Variants of a method", build=build, by_group=True, needs=("variants",), shows_cost=True
)


def main_table(inputs: ReportInputs) -> Table:
    """The table of methods or variants, with the report's columns and those that were asked for.

    Raises:
        InputError: When something in it is mixed, or a name is unknown.
    """
    context, card = inputs.context, inputs.card
    runs = context.grid.all_runs
    check_alike(runs)
    titles = {run.run_id: line.title for line in context.grid.lines for run in line.all_runs}
    check_cells(runs, lambda run: titles[run.run_id])
    makers = make_columns(dict.fromkeys([*card.columns, *inputs.request.columns]), context)
    columns = [column for column, _ in makers]
    lines = context.grid.lines
    rows = [line.row({column.key: make(line, context) for column, make in makers}) for line in lines]
    commands = _missing_commands(inputs, _has_pme(columns))
    caption = _caption(columns, context)
    notes = [_explained(columns, context), *_notes(columns, rows, context)]
    row_title = "variant" if card.variants else "method"
    table = Table("main", card.title, columns, rows, caption, notes, row_title, commands)
    table = align(add_baselines(table, inputs.audits, context), inputs.request.decimals)
    marked = mark_rows([row for row in table.rows if row.kind == "method"], table.columns)
    return replace(table, rows=[*marked, *(row for row in table.rows if row.kind == "baseline")])


def describe_settings(settings: Mapping[str, Any], but: Sequence[str] = ()) -> str:
    """The settings that results have in common, in words."""
    words = {
        "shots": "{} shots of each class",
        "train_fraction": "{:.3g} of the training split",
        "backbone": "{}",
        "weights": "weights {}",
        "image_size": "{} pixels",
        "training.batch_size": "batch size {}",
        "training.epochs": "{} epochs",
        "training.optimizer": "{}",
        "precision": "{}",
        "attention_kernel": "attention {}",
        "device": "on {}",
    }
    parts = [
        text.format(settings[key]) if (key, settings[key]) != ("training.epochs", 1) else "1 epoch"
        for key, text in words.items()
        if settings.get(key) is not None and key not in but and settings[key] != _UNSAID.get(key)
    ]
    parts.append("with checkpointing" if settings.get("checkpointing") else "no checkpointing")
    if settings.get("compile"):
        parts.append("compiled")
    if settings.get("training.accumulate") not in (None, 1):
        parts.append(f"batches in {settings['training.accumulate']} micro-batches")
    return ", ".join(parts)


def _caption(columns: Sequence[Column], context: Context) -> str:
    """What the figures are, in what setting, and where the memory is from: what a table in print must say."""
    runs = context.grid.all_runs
    keys = {column.key for column in columns}
    sentences = []
    if keys & {*context.grid.datasets, "average"}:
        unit = ", in percent" if context.grid.groups else ""
        score = f"{as_sentence(context.metric_title)} of the test split{unit}"
        sentences.append(f"{score}, mean ± standard deviation over runs.")
    if runs:
        sentences.append(f"Setting: {describe_settings(common_settings(runs))}.")
        if "memory" in keys:
            source = (runs[0].document.get("memory") or {}).get("source")
            sentences.append(f"Memory: '{context.figure}', peak of a training step, measured on {source}.")
    return " ".join(sentences)


def _explained(columns: Sequence[Column], context: Context) -> str:
    """What columns and marks mean."""
    keys = {column.key for column in columns}
    sentences = {
        _MEANS: bool(context.grid.groups),
        _PME: "pme" in keys,
        _PRELOADING: "cache" in keys,
        TIME_NOTE: "time" in keys,
        _MARKED: True,
        _FRONT: "front" in keys,
    }
    return " ".join(sentence for sentence, is_shown in sentences.items() if is_shown)


def _has_pme(columns: Sequence[Column]) -> bool:
    return any(column.key == "pme" for column in columns)


def _notes(columns: Sequence[Column], rows: Sequence[Row], context: Context) -> list[str]:
    notes = []
    if context.missing_reference and _has_pme(columns):
        notes.append(f"PME is empty: {context.missing_reference}.")
    empty = _cells_by(rows, context, lambda cell: [cell.reason] if cell.value is None and cell.reason else [])
    notes += [f"Empty, {reason}: {cells}." for reason, cells in empty]
    notes += [f"{as_sentence(flag)}: {cells}." for flag, cells in _cells_by(rows, context, lambda cell: cell.flags)]
    notes += _hardware(context.grid.all_runs)
    marked = [f"{context.grid.titles[name]} ({', '.join(marks)})" for name, marks in context.flagged.items() if marks]
    if marked:
        notes.append(f"Marked by an audit: {'; '.join(marked)}. A trivial classifier passes an AUC of 90 % there.")
    return notes


def _cells_by(rows: Sequence[Row], context: Context, texts: Callable[[Cell], Iterable[str]]) -> list[tuple[str, str]]:
    """What is said of cells of datasets, and the names of those of which it is said."""
    cells: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        for name in context.grid.datasets:
            for text in texts(row.cells.get(name, Cell())):
                cells.setdefault(text, {}).setdefault(context.grid.titles[name], []).append(row.title)
    return [(text, _named(by_dataset, len(rows))) for text, by_dataset in sorted(cells.items())]


def _named(by_dataset: Mapping[str, Sequence[str]], rows: int) -> str:
    """The names of cells; those of all of several rows on a dataset at once."""
    every = [title for title, titles in by_dataset.items() if len(titles) == rows > 1]
    others = [f"{row} on {title}" for title, titles in by_dataset.items() if title not in every for row in titles]
    return "; ".join([*([f"every row on {', '.join(every)}"] if every else []), *others])


def _hardware(runs: Sequence[Stored]) -> list[str]:
    machines = set()
    for run in runs:
        hardware = (run.document.get("environment") or {}).get("hardware") or {}
        gpus = (gpu.get("name", gpu) if isinstance(gpu, dict) else gpu for gpu in hardware.get("gpus") or ())
        is_gpu = run.config["device"] == "cuda"
        machines.add(", ".join(map(str, gpus)) if is_gpu else str(hardware.get("processor", "")))
    if len(machines) < 2:
        return []
    return [f"Times are of several machines and do not compare: {'; '.join(sorted(machines))}."]


def _missing_commands(inputs: ReportInputs, has_pme: bool) -> list[str]:
    """The commands that fill the empty cells of a table, in the settings of its other runs.

    Args:
        inputs: What the table is made from. Where its rows are more than methods, the command names the report.
        has_pme: Whether the table needs the run that PME refers to.
    """
    context, card = inputs.context, inputs.card
    runs, lines = context.grid.all_runs or inputs.finished, context.grid.lines
    missing = [(line.method, name) for line in lines for name in context.grid.datasets if not line.runs.get(name)]
    commands = []
    if has_pme and context.missing_reference:
        reference = ["run", "--method", REFERENCE, "--dataset", str(runs[0].config["dataset"])]
        commands.append([*reference, *_split(runs, runs[0].dataset)])
    paths = {run.dataset: str(run.config["dataset"]) for run in runs}
    paths |= {task.key: task.dataset for task in tasks_of(card.groups)}
    seeds = ["--seed", _listed(map(str, sorted({run.seed for run in runs})))]
    seeds += ["--draw", _listed(map(str, sorted({run.draw for run in runs})))] if runs and runs[0].part else []
    for split in dict.fromkeys(_split(runs, name) for _, name in missing) if runs else ():
        cells = [(method, name) for method, name in missing if _split(runs, name) == split]
        rows = ["--report", card.name] if card.variants else ["--method", _listed(method for method, _ in cells)]
        datasets = _listed(paths.get(name, name) for _, name in cells)
        commands.append(["bench", *rows, "--dataset", datasets, *seeds, *split])
    folders = [word for folder in inputs.catalog.folders for word in ("--catalog", str(folder))]
    folders += [] if inputs.request.folder is None else ["--output", str(inputs.request.folder)]
    return [shlex.join(["petlbench", *words, *_settings(runs), *folders]) for words in commands]


def _split(runs: Sequence[Stored], dataset: str) -> tuple[str, ...]:
    """The options that split a dataset as its runs do; none where it has no run, or they do not agree."""
    splits = {(str(run.value("split")), run.value("split_seed")) for run in runs if run.dataset == dataset}
    if len(splits) != 1:
        return ()
    [(scheme, seed)] = splits
    return ("--split", scheme, *(("--split-seed", str(seed)) if seed else ()))


def _settings(runs: Sequence[Stored]) -> list[str]:
    common = common_settings(runs)
    words = [
        word
        for key in _OPTIONS
        if common[key] is not None and common[key] != _DEFAULTS.get(key)
        for word in (f"--{key.removeprefix('training.').replace('_', '-')}", str(common[key]))
    ]
    threads = {run.value("threads") for run in runs}
    words += ["--threads", str(threads.pop())] if len(threads) == 1 else []
    return [*words, *(f"--{name}" for name in ("checkpointing", "compile") if common[name])]


def _listed(names: Iterable[str]) -> str:
    return ",".join(dict.fromkeys(names))
