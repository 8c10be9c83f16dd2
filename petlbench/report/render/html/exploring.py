"""Figures that a page adds to its report: all runs to explore, curves by dataset, confusion matrices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from petlbench.report.document import Axis, Figure, Series
from petlbench.report.render.html.runs import MEASURES, Group, Measure, pick
from petlbench.results.table import Spread, mean_curve

__all__ = ["confusion_figures", "curve_figures", "run_figures"]

_MOST = 40  # lines of one plot and matrices of one dataset: more cannot be told apart

_AUC, _VALIDATION = MEASURES[0], MEASURES[1]


def run_figures(groups: Sequence[Group]) -> list[Figure]:
    """Plot every group of runs: one figure a dataset and source of memory, and one of the averages of all datasets."""
    by_dataset = [
        _scatter(f"{dataset}{f', memory: {source}' if source else ''}", members)
        for (dataset, source), members in _by(groups, "dataset", "source").items()
    ]
    return [*_average(groups), *by_dataset]


def curve_figures(groups: Sequence[Group]) -> list[Figure]:
    """Plot the epochs of every dataset: mean over seeds, with a band from the lowest to the highest seed."""
    figures = []
    for (dataset,), members in _by(groups, "dataset").items():
        shown = _best([group for group in members if any(run.get("curve") for run in group.runs)])
        entries = (entry for group in shown for run in group.runs for entry in run["curve"])
        names = dict.fromkeys(name for entry in entries for name in entry if name != "epoch")
        axes = [Axis("epoch", "epoch"), *(Axis(name, name.replace("_", " ")) for name in names)]
        if shown and names:
            y = next((name for name in ("val_auc", "val_loss", "train_loss") if name in names), next(iter(names)))
            series = [Series(group.title, group.title, _mean_curve(group, list(names))) for group in shown]
            caption = "Mean over seeds; the band reaches from the lowest to the highest."
            if len(shown) < len(members):
                caption += f" The {len(shown)} of {len(members)} with the best validation AUC."
            figures.append(Figure(f"curves-{dataset}", "lines", dataset, axes, "epoch", y, series, caption=caption))
    return figures


def confusion_figures(groups: Sequence[Group]) -> list[Figure]:
    """Confusion matrices of the test split, summed over seeds, for each group."""
    axes = [Axis("predicted", "predicted class"), Axis("true", "true class")]
    figures = []
    for (dataset,), members in _by(groups, "dataset").items():
        for group in _best([member for member in members if any(map(_confusion, member.runs))]):
            matrices = [matrix for run in group.runs if (matrix := _confusion(run))]
            sums = ([sum(cells) for cells in zip(*rows, strict=True)] for rows in zip(*matrices, strict=True))
            values = {str(number): row for number, row in enumerate(sums)}
            labels = [str(name) for name in pick(group.runs[0], "data.classes") or ()]
            fits = len(labels) == len(values)
            series = [Series(group.title, group.title, values, labels=labels if fits else list(values))]
            figures.append(Figure.of(dataset, "matrix", group.title, axes, series))
    return figures


def _scatter(title: str, groups: Sequence[Group]) -> Figure:
    measures = [measure for measure in MEASURES if any(group.spread(measure) for group in groups)]
    series = [
        Series(
            method,
            method,
            {measure.axis.key: [group.mean(measure) for group in members] for measure in measures},
            labels=[_label(group) for group in members],
        )
        for (method,), members in _by(groups, "method").items()
    ]
    return _explorer(title, measures, series)


def _average(groups: Sequence[Group]) -> Iterator[Figure]:
    """Average each method over the datasets, where it has exactly one group on every one; memory is of one source."""
    datasets = dict.fromkeys(group.dataset for group in groups)
    if len(datasets) < 2 or len({group.source for group in groups}) > 1:
        return
    series, left_out = [], []
    for (method,), members in _by(groups, "method").items():
        if {group.dataset for group in members} != set(datasets) or len(members) > len(datasets):
            left_out.append(method)
            continue
        spreads = {each.axis.key: Spread.of(group.mean(each) for group in members) for each in MEASURES}
        values = {key: [each.mean if each and each.count == len(members) else None] for key, each in spreads.items()}
        series.append(Series(method, method, values, labels=[f"{method}, average of {len(datasets)} datasets"]))
    if series:
        measures = [each for each in MEASURES if any(line.values[each.axis.key][0] is not None for line in series)]
        missing = f"Not on every dataset, or with more than one setting: {', '.join(left_out)}." if left_out else ""
        yield _explorer(f"average of {len(datasets)} datasets", measures, series, missing)


def _explorer(title: str, measures: Sequence[Measure], series: Sequence[Series], caption: str = "") -> Figure:
    keys = [measure.axis.key for measure in measures]
    y = next((key for key in ("auc", "val_auc") if key in keys), keys[0] if keys else "")
    x = next((key for key in ("memory", "parameters", "time") if key in keys), y)
    size = next((key for key in ("parameters", "time") if key in keys and key != x), None)
    axes = [measure.axis for measure in measures]
    return Figure(f"runs-{title}", "scatter", title, axes, x, y, series, size=size, caption=caption)


def _label(group: Group) -> str:
    auc = group.spread(_AUC)
    label = f"{group.title}: {len(group.runs)} seed" + ("s" if len(group.runs) > 1 else "")
    label += "" if auc is None else f", test AUC {auc.mean:.2f} %"
    return label if auc is None or auc.std is None else f"{label} ± {auc.std:.2f}"


def _mean_curve(group: Group, names: Sequence[str]) -> dict[str, list[float | None]]:
    curves = [run["curve"] for run in group.runs]
    epochs = sorted({entry["epoch"] for curve in curves for entry in curve if "epoch" in entry})
    values: dict[str, list[float | None]] = {"epoch": [float(epoch) for epoch in epochs]}
    for name in names:
        bands = mean_curve(curves, name)
        rows = [bands.get(epoch, (None, None, None)) for epoch in epochs]
        keys = (name, f"{name}_low", f"{name}_high") if len(curves) > 1 else (name,)
        values |= {key: [row[column] for row in rows] for column, key in enumerate(keys)}
    return values


def _best(groups: Sequence[Group]) -> list[Group]:
    """Those with the best validation AUC, where they are too many; in their own order."""
    best = set(map(id, sorted(groups, key=lambda group: -(group.mean(_VALIDATION) or 0))[:_MOST]))
    return [group for group in groups if id(group) in best]


def _confusion(run: Mapping[str, Any]) -> list[list[int]] | None:
    matrix = pick(run, "metrics.test.confusion_matrix")
    return matrix if isinstance(matrix, list) else None


def _by(groups: Sequence[Group], *names: str) -> dict[tuple[str, ...], list[Group]]:
    members: dict[tuple[str, ...], list[Group]] = {}
    for group in groups:
        members.setdefault(tuple(getattr(group, name) for name in names), []).append(group)
    return members
