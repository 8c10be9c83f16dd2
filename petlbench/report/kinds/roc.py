"""How well classes are told apart at every threshold: ROC and precision-recall curves, and confusion matrices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from petlbench.core.catalog import Catalog
from petlbench.data.tasks.base import TaskType
from petlbench.report.cells import rounded
from petlbench.report.context import Line
from petlbench.report.document import Axis, Cell, Column, Figure, Series, Table
from petlbench.report.formats import Document
from petlbench.report.inputs import ReportInputs
from petlbench.report.selection import check_alike, check_cells
from petlbench.report.spec import ReportKind
from petlbench.results.predictions import Predictions
from petlbench.results.stored import Stored
from petlbench.results.table import Spread

if TYPE_CHECKING:
    from numpy.typing import NDArray

_POINTS = 101  # of a curve, evenly spaced
_MOST_RUNS = 600  # whose predictions are read for a report that is about something else
_PERCENT = 100.0
_MACRO = "Mean over classes, each against the rest, and over runs; the band reaches from the lowest to the highest run."

# From a question's positives, (n,), and the probabilities given them, (n,), to a curve's heights, (_POINTS,).
_Curve = Callable[["NDArray[Any]", "NDArray[Any]"], "NDArray[Any]"]


def build(inputs: ReportInputs) -> Document:
    """Make a table of AUC and average precision, both curves of each dataset, and each row's confusion matrix."""
    check_alike(inputs.finished)
    check_cells(inputs.finished, lambda run: run.method)
    matrices = [
        figure
        for name in inputs.context.grid.datasets
        for line in inputs.context.grid.lines
        for figure in _confusion(line, name, inputs.context.grid.titles[name])
    ]
    return inputs.document([_table(inputs)], [*curve_figures(inputs), *matrices])


ROC = ReportKind(name="roc", title="ROC and precision-recall curves, confusion matrices", build=build, by_group=True)


def curve_figures(inputs: ReportInputs) -> list[Figure]:
    """ROC and precision-recall curve of each dataset, a line a row; none where too many predictions would be read."""
    grid = inputs.context.grid
    if len(grid.all_runs) > _MOST_RUNS:
        return []
    figures = []
    for name in grid.datasets:
        for key, title, x, y, curve in (
            ("roc", "ROC curve", "false positive rate", "true positive rate", _roc),
            ("pr", "precision-recall curve", "recall", "precision", _precision_recall),
        ):
            lines = [line for each in grid.lines if (line := _line(each, name, inputs, curve)) is not None]
            if lines:
                chance = [Series("chance", "chance", {"x": [0.0, _PERCENT], "y": [0.0, _PERCENT]}, role="reference")]
                axes = (Axis("x", x, "%"), Axis("y", y, "%"))
                series = [*lines, *(chance if key == "roc" else [])]
                heading, marks = f"{grid.titles[name]}: {title}", {"square": True}
                figures.append(Figure.of(f"{name}-{key}", "lines", heading, axes, series, caption=_MACRO, marks=marks))
    return figures


def _line(line: Line, dataset: str, inputs: ReportInputs, curve: _Curve) -> Series | None:
    """The mean curve of a row on a dataset; None where its runs keep no predictions, or labels are no classes."""
    import numpy as np

    curves = [heights for run in line.runs.get(dataset, ()) if (heights := _of_run(run, inputs, curve)) is not None]
    if not curves:
        return None
    heights = _PERCENT * np.stack(curves)
    values = {"x": np.linspace(0, _PERCENT, _POINTS), "y": heights.mean(axis=0)}
    if len(curves) > 1:
        values |= {"y_low": heights.min(axis=0), "y_high": heights.max(axis=0)}
    return Series(line.key, line.title, {key: points.tolist() for key, points in values.items()})


def _of_run(run: Stored, inputs: ReportInputs, curve: _Curve) -> NDArray[Any] | None:
    import numpy as np

    predictions = inputs.predictions(run, "test")
    if predictions is None:
        return None
    curves = [curve(*pair) for pair in _pairs(run, predictions, inputs.catalog)]
    return np.stack(curves).mean(axis=0) if curves else None


def _pairs(run: Stored, predictions: Predictions, catalog: Catalog) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """What is true and what is thought of each class that some test images have and some have not."""
    data = run.document.get("data", {})
    task = catalog.load("task", data.get("task", "multiclass"), TaskType)
    classes = [str(name) for name in data.get("classes") or range(predictions.logits.shape[1])]
    for question in task.questions(predictions.labels, classes, task.probabilities(predictions.logits)):
        options = [place for place, output in enumerate(question.outputs) if output is not None]
        for option in options[1:] if len(options) == 2 else options:
            is_it = question.answers == option
            if question.chances is not None and is_it.any() and not is_it.all():
                yield is_it, question.chances[:, option]


def _roc(positive: NDArray[Any], chances: NDArray[Any]) -> NDArray[Any]:
    """True positive rates at evenly spaced false positive rates."""
    import numpy as np
    from sklearn.metrics import roc_curve

    x, y, _ = roc_curve(positive, chances)
    heights = np.asarray(np.interp(np.linspace(0, 1, _POINTS), x, y))
    heights[0] = 0.0
    return heights


def _precision_recall(positive: NDArray[Any], chances: NDArray[Any]) -> NDArray[Any]:
    """Precisions at evenly spaced recalls: at each the best that some threshold of at least that recall has."""
    import numpy as np
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(positive, chances)
    best = np.maximum.accumulate(precision)  # recall falls along the arrays
    places = np.searchsorted(-recall, -np.linspace(0, 1, _POINTS), side="right") - 1
    return np.asarray(best[places])


def _table(inputs: ReportInputs) -> Table:
    """AUC and average precision of every row on every dataset, in percent."""
    from petlbench.report.cells import mark_rows

    grid = inputs.context.grid
    columns, cells = [], {line.key: dict[str, Cell]() for line in grid.lines}
    for name in grid.datasets:
        for key, title in (("auc", inputs.context.metric_title), ("ap", "average precision")):
            columns.append(Column(f"{name}-{key}", title, "%", "higher", group=grid.titles[name]))
            for line in grid.lines:
                cell = inputs.context.cell(line, name) if key == "auc" else _average_precision(line, name, inputs)
                cells[line.key][f"{name}-{key}"] = cell
    rows = mark_rows([line.row(cells[line.key]) for line in grid.lines], columns)
    caption = (
        "Test split, mean ± standard deviation over runs; average precision: mean over classes, each against the rest."
    )
    return Table("main", inputs.card.title, columns, rows, caption)


def _average_precision(line: Line, dataset: str, inputs: ReportInputs) -> Cell:
    from sklearn.metrics import average_precision_score

    by_run = []
    for run in line.runs.get(dataset, ()):
        predictions = inputs.predictions(run, "test")
        pairs = [] if predictions is None else list(_pairs(run, predictions, inputs.catalog))
        scores = [float(average_precision_score(*pair)) for pair in pairs]
        by_run.append(_PERCENT * sum(scores) / len(scores) if scores else None)
    spread = Spread.of(by_run)
    if spread is None:
        return Cell(text="–", reason="no predictions of classes are kept")
    return Cell(spread.mean, rounded(spread.mean, spread.std), std=spread.std)


def _confusion(line: Line, dataset: str, title: str) -> Iterator[Figure]:
    """The confusion matrix of the test split, summed over runs."""
    runs = line.runs.get(dataset, ())
    matrices = [matrix for run in runs if (matrix := _matrix(run))]
    if matrices:
        labels = [str(name) for name in runs[0].document.get("data", {}).get("classes") or range(len(matrices[0]))]
        axes = [Axis("predicted", "predicted class"), Axis("true", "true class")]
        series = [Series(line.key, line.title, _sums(matrices), labels=labels)]
        heading, caption = f"{title}: {line.title}", f"Test images, summed over {len(matrices)} runs."
        yield Figure.of(f"{dataset}-confusion-{line.key}", "matrix", heading, axes, series, caption=caption)


def _matrix(run: Stored) -> Sequence[Sequence[int]]:
    matrix = run.document["metrics"].get("test", {}).get("confusion_matrix")
    return matrix if isinstance(matrix, list) else []


def _sums(matrices: Iterable[Sequence[Sequence[int]]]) -> dict[str, list[float | None]]:
    rows = zip(*matrices, strict=True)
    return {str(number): [float(sum(cells)) for cells in zip(*row, strict=True)] for number, row in enumerate(rows)}
