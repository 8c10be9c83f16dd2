"""What a table's numbers hang on: normalisation, choice of the epoch, average, form of the files, and seed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from math import fsum
from statistics import fmean, stdev

from petlbench.core.errors import InputError
from petlbench.core.text import as_sentence
from petlbench.metrics.metric import Metric
from petlbench.report.cells import mark_best, number_cell, rounded
from petlbench.report.document import Cell, Column, Row, Table
from petlbench.report.formats import Document
from petlbench.report.inputs import ReportInputs
from petlbench.report.kinds.methods import describe_settings
from petlbench.report.selection import check_alike, check_cells, common_settings
from petlbench.report.spec import ReportKind
from petlbench.report.tasks import Average, equal_weights, tasks_of
from petlbench.results.journal import read_reads
from petlbench.results.stored import Stored

FACTORS: Mapping[str, str] = {
    "normalize": "normalisation",
    "form": "form of the files",
    "epoch": "choice of the epoch",
    "average": "average",
}
"""What is compared, by key: a setting has a level of each, in this order."""

_LAST, _VALIDATION, _TEST = "last", "best on validation", "best on test"
_LOSSLESS, _JPEG = "lossless", "JPEG"

Setting = tuple[str, ...]
Repeat = tuple[int, str, int]
Scores = Mapping[tuple[str, str, str], Mapping[Repeat, Mapping[str, float]]]


@dataclass(frozen=True)
class Sensitivity:
    """The figures of methods under every setting.

    Args:
        levels: The levels of each factor that are there, by its key.
        methods: Titles of the methods by name.
        figures: Of each setting and method the figure of every repeat (seed, split's index, draw), in percent.
        sign: 1 where the higher figure is the better one, else -1.
    """

    levels: Mapping[str, Sequence[str]]
    methods: Mapping[str, str]
    figures: Mapping[Setting, Mapping[str, Mapping[Repeat, float]]]
    sign: int

    @property
    def varied(self) -> list[str]:
        """Factors of which several levels are there."""
        return [factor for factor, levels in self.levels.items() if len(levels) > 1]

    @cached_property
    def means(self) -> dict[Setting, dict[str, float]]:
        """The mean over repeats of each method in each setting, where it has one."""
        return {
            setting: {method: fmean(values.values()) for method, values in by_method.items() if values}
            for setting, by_method in self.figures.items()
        }

    @property
    def seeds(self) -> list[int]:
        """The seeds of the repeats."""
        tables = [values for by_method in self.figures.values() for values in by_method.values()]
        return sorted({seed for values in tables for seed, _, _ in values})

    def order(self, means: Mapping[str, float]) -> list[str]:
        """Methods from the best to the last."""
        return sorted(means, key=lambda method: -self.sign * means[method])

    def lead(self, means: Mapping[str, float]) -> float | None:
        """By how much the best method is ahead of the second; None of a single one."""
        best = sorted((self.sign * value for value in means.values()), reverse=True)[:2]
        return next((first - second for first, second in pairwise(best)), None)

    def winners(self, levels: Sequence[Mapping[str, float]]) -> set[str]:
        """The best at each of several levels, of methods that have a figure at all of them; none of a single level."""
        tables = [means for means in levels if means]
        shared = set.intersection(*map(set, tables)) if len(tables) > 1 else set()
        return {self.order({name: means[name] for name in means if name in shared})[0] for means in tables if shared}

    def alike_but(self, factor: str) -> list[list[dict[str, float]]]:
        """Means by method at each level of a factor, for each setting of all others."""
        place = list(self.levels).index(factor)
        groups: dict[Setting, list[dict[str, float]]] = {}
        for setting, means in self.means.items():
            groups.setdefault((*setting[:place], *setting[place + 1 :]), []).append(means)
        return list(groups.values())

    def by_repeat(self) -> list[list[dict[str, float]]]:
        """Figures by method of each repeat, for each setting."""
        tables = []
        for by_method in self.figures.values():
            repeats = dict.fromkeys(repeat for values in by_method.values() for repeat in values)
            tables.append([{m: values[each] for m, values in by_method.items() if each in values} for each in repeats])
        return tables

    def deviations(self) -> list[tuple[float, str]]:
        """The standard deviation over repeats of each figure that has several, and the method that it is of."""
        return [
            (stdev(values.values()), method)
            for by_method in self.figures.values()
            for method, values in by_method.items()
            if len(values) > 1
        ]

    def leads(self) -> list[tuple[float, str]]:
        """By how much the best method leads in each setting, and which it is."""
        leads = [(self.lead(means), self.order(means)) for means in self.means.values()]
        return [(lead, order[0]) for lead, order in leads if lead is not None]


def changes(tables: Iterable[Sequence[Mapping[str, float]]]) -> list[tuple[float, str]]:
    """How far the figure of each method goes from its least to its largest within each table, and whose it is."""
    ranges = []
    for levels in tables:
        for method in dict.fromkeys(name for means in levels for name in means):
            values = [means[method] for means in levels if method in means]
            if len(values) > 1:
                ranges.append((max(values) - min(values), method))
    return ranges


def build(inputs: ReportInputs) -> Document:
    """Make the table of what moves figures by how much, and that of all settings.

    Raises:
        InputError: When results are of settings that no table may mix, or none has scores of test in its curve.
    """
    runs, metric = inputs.finished, inputs.metric
    check_alike(runs, but=("normalize",))
    check_cells(runs, lambda run: f"{run.method} with {run.value('normalize')}")
    figures = _figures(inputs)
    if not any(values for by_method in figures.figures.values() for values in by_method.values()):
        raise InputError(
            f"no method in {inputs.request.results} has test_{metric.name} of every epoch on all datasets",
            hint="leave datasets out with --where dataset=NAME, or choose another score with --metric",
            kind="no_results",
        )
    settings = describe_settings(common_settings(runs))
    tables = [_factors(figures, metric), _settings(figures, metric, f"Setting: {settings}.")]
    return inputs.document(tables, notes=_notes(inputs))


SENSITIVITY = ReportKind(name="sensitivity", title="What a table's numbers hang on", build=build, shows_test=True)


def _figures(inputs: ReportInputs) -> Sensitivity:
    """The figures of all settings, from the curves of the runs."""
    sign = 1 if inputs.metric.direction == "higher" else -1
    scores: dict[tuple[str, str, str], dict[Repeat, Mapping[str, float]]] = {}
    for run in inputs.finished:
        repeat = (run.seed, str(run.config["split"]).partition("/")[2], run.draw)
        key = (run.method, str(run.value("normalize")), run.dataset)
        scores.setdefault(key, {})[repeat] = scores_by_choice(run, inputs.metric, sign)
    copies, averages = _copies(inputs), {average.title: average for average in _averages(inputs)}
    choices = {choice for repeats in scores.values() for by_choice in repeats.values() for choice in by_choice}
    levels = {
        "normalize": list(dict.fromkeys(normalize for _, normalize, _ in scores)),
        "form": [_LOSSLESS, _JPEG] if copies else [_LOSSLESS],
        "epoch": [choice for choice in (_LAST, _VALIDATION, _TEST) if choice in choices],
        "average": list(averages),
    }
    present = {method for method, _, _ in scores}
    methods = {line.method: line.title for line in inputs.context.grid.lines if line.method in present}
    figures: dict[Setting, dict[str, dict[Repeat, float]]] = {}
    for setting in product(*levels.values()):
        normalize, form, choice, average = setting
        weights = averages[average].weights
        names = {copies.get(task, task) if form == _JPEG else task: weight for task, weight in weights.items()}
        figures[setting] = {method: _averaged(scores, (method, normalize, choice), names) for method in methods}
    return Sensitivity(levels, methods, _of_shared_repeats(figures), sign)


def _averaged(scores: Scores, of: tuple[str, str, str], weights: Mapping[str, float]) -> dict[Repeat, float]:
    """The weighted mean over datasets, in percent, of each repeat that has all of them.

    Args:
        scores: The scores of each method with a normalisation on a dataset.
        of: Method, normalisation and choice of the epoch.
        weights: Of each dataset, which add up to 1.
    """
    method, normalize, choice = of
    by_dataset = [(weight, scores.get((method, normalize, name), {})) for name, weight in weights.items()]
    whole = [each for each in by_dataset[0][1] if all(choice in by_repeat.get(each, ()) for _, by_repeat in by_dataset)]
    return {
        each: 100 * fsum(weight * by_repeat[each][choice] for weight, by_repeat in by_dataset) for each in sorted(whole)
    }


def _of_shared_repeats(
    figures: Mapping[Setting, Mapping[str, Mapping[Repeat, float]]],
) -> dict[Setting, dict[str, dict[Repeat, float]]]:
    """The figures of those repeats alone that a method has in all settings: else a change would be one of seeds too."""
    shared: dict[str, set[Repeat]] = {}
    for by_method in figures.values():
        for method, values in by_method.items():
            if values:
                shared[method] = shared.get(method, set(values)) & set(values)
    return {
        setting: {
            method: {repeat: value for repeat, value in values.items() if repeat in shared[method]}
            for method, values in by_method.items()
        }
        for setting, by_method in figures.items()
    }


def scores_by_choice(run: Stored, metric: Metric, sign: int) -> dict[str, float]:
    """The test score of a run at each choice of the epoch, as a fraction; of equal epochs the earlier one is taken.

    Args:
        run: The run, in whose curve the scores are.
        metric: The score, which chooses as well.
        sign: 1 where the higher score is the better one, else -1.
    """
    curve = run.document.get("curve") or ()
    test, val = ([_number(entry.get(f"{side}_{metric.name}")) for entry in curve] for side in ("test", "val"))
    tested = [score for score in test if score is not None]
    if not tested or len(tested) < len(test):
        return {}
    scores = {_LAST: tested[-1], _TEST: sign * max(sign * score for score in tested)}
    pairs = [(sign * chosen_by, score) for chosen_by, score in zip(val, tested, strict=True) if chosen_by is not None]
    if len(pairs) == len(tested):
        scores[_VALIDATION] = max(pairs, key=lambda pair: pair[0])[1]
    return scores


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _copies(inputs: ReportInputs) -> dict[str, str]:
    """The lossy copy of each task that has one, where there are results on both.

    Raises:
        InputError: When there are results on one of them only.
    """
    keys = {task.dataset: task.key for task in tasks_of(inputs.card.groups)}
    present, copies = {run.dataset for run in inputs.finished}, {}
    for pair in inputs.card.copies:
        lossless = keys.get(pair.lossless, pair.lossless)
        if missing := [name for name in (lossless, pair.jpeg) if name not in present]:
            raise InputError(
                f"the report '{inputs.card.name}' compares {pair.lossless} with its copy {pair.jpeg}, and there are no "
                f"results on {' and '.join(missing)}; there are on: {', '.join(sorted(present))}",
                hint="run both, or correct [[copies]]",
                kind="no_results",
            )
        copies[lossless] = pair.jpeg
    return copies


def _averages(inputs: ReportInputs) -> list[Average]:
    """The means over all tasks that there are results on: over groups and over tasks of a suite, else over datasets."""
    grid, present = inputs.context.grid, {run.dataset for run in inputs.finished}
    if grid.groups:
        return [average for average in grid.suite_averages if average.key.startswith("mean")]
    lossy = {pair.jpeg for pair in inputs.card.copies}
    names = [name for name in grid.datasets if name in present - lossy]
    return [Average(f"mean{len(names)}", f"{len(names)} dataset{'s'[: len(names) > 1]}", equal_weights(names))]


def _factors(figures: Sensitivity, metric: Metric) -> Table:
    """How far figures move with each factor, beside their deviation over seeds and the lead of the best method."""
    columns = [
        Column("levels", "levels", numeric=False),
        Column("largest", "largest change", "points"),
        Column("method", "of", numeric=False),
        Column("mean", "mean change", "points"),
        Column("winners", "another method is best", numeric=False),
    ]
    tables = {factor: figures.alike_but(factor) for factor in figures.varied}
    rows = [
        _factor_row(factor, FACTORS[factor], ", ".join(figures.levels[factor]), tables[factor], figures)
        for factor in figures.varied
    ]
    if figures.deviations():
        rows.append(_factor_row("seed", "seed", ", ".join(map(str, figures.seeds)), figures.by_repeat(), figures))
    amounts = {
        "deviation": ("deviation over seeds", figures.deviations()),
        "lead": ("lead of the best", figures.leads()),
    }
    rows += [
        Row(key, title, _amounts(values, figures), kind="baseline")
        for key, (title, values) in amounts.items()
        if values
    ]
    caption = (
        f"{as_sentence(metric.title)} in percent. Change: from the least to the largest figure of a method when that "
        "factor changes and nothing else does; the largest and the mean over methods and over all settings of the "
        "other factors. Another method is best: in so many of these settings the best method depends on the factor. "
        "Below: standard deviation over seeds, and by how much the best method is ahead of the second."
    )
    return Table("factors", _verdict(figures, tables), columns, rows, caption, row_title="what changes")


def _factor_row(
    key: str, title: str, levels: str, tables: Sequence[Sequence[Mapping[str, float]]], figures: Sensitivity
) -> Row:
    winners = [winning for levels in tables if (winning := figures.winners(levels))]
    text = f"{sum(len(each) > 1 for each in winners)} of {len(winners)}" if winners else "–"
    cells = {"levels": Cell(text=levels), "winners": Cell(text=text)}
    return Row(key, title, {**cells, **_amounts(changes(tables), figures)})


def _amounts(values: Sequence[tuple[float, str]], figures: Sensitivity) -> dict[str, Cell]:
    """The largest of some amounts with its method, and their mean."""
    if not values:
        return {"largest": number_cell(None, reason="there is one only"), "mean": number_cell(None)}
    largest, method = max(values)
    mean = fmean(value for value, _ in values)
    return {
        "largest": number_cell(largest),
        "method": Cell(text=figures.methods[method]),
        "mean": number_cell(mean),
    }


def _verdict(figures: Sensitivity, tables: Mapping[str, Sequence[Sequence[Mapping[str, float]]]]) -> str:
    """What moves figures most, beside what methods differ by, in a sentence without its full stop."""
    moved = {factor: values for factor, table in tables.items() if (values := changes(table))}
    if not moved:
        return "Nothing but the seed was varied"
    factor = max(moved, key=lambda name: max(moved[name]))
    largest, method = max(moved[factor])
    name = FACTORS[factor]
    text = f"{as_sentence(name)} moves a method by up to {largest:.2f} points ({figures.methods[method]})"
    leads, deviations = figures.leads(), figures.deviations()
    if leads:
        text += f"; the best two methods are {fmean(lead for lead, _ in leads):.2f} apart"
    if deviations:
        text += f", seeds deviate by {fmean(value for value, _ in deviations):.2f}"
    return text


def _settings(figures: Sensitivity, metric: Metric, setting: str) -> Table:
    """Every method under every setting."""
    shown = [
        factor for factor in figures.levels if factor == "normalize" or factor in figures.varied or factor == "epoch"
    ]
    titles = {"normalize": "normalisation", "epoch": "epoch", "average": "average over", "form": "files"}
    columns = [Column(factor, titles[factor], numeric=False) for factor in shown[1:]]
    columns += [Column(name, title, "%", metric.direction) for name, title in figures.methods.items()]
    columns += [Column("lead", "lead", "points"), Column("order", "from the best", numeric=False)]
    most = max(len(values) for by_method in figures.figures.values() for values in by_method.values())
    present = [each for each in figures.figures if figures.means[each]]
    rows = [row for each in present for row in _setting_row(each, shown, figures, most)]
    caption = (
        f"{as_sentence(metric.title)}, mean ± standard deviation over seeds of the average over datasets. Epoch: the "
        "last, or the one whose score is best on validation or on test, of which the latter chooses by what is "
        f"reported. In a row the best is bold, the second underlined. {setting}"
    )
    return Table("settings", "Methods under every setting", columns, rows, caption, row_title=titles["normalize"])


def _setting_row(setting: Setting, shown: Sequence[str], figures: Sensitivity, most: int) -> Iterator[Row]:
    levels, means = dict(zip(figures.levels, setting, strict=True)), figures.means[setting]
    cells = [_cell([*figures.figures[setting][name].values()], most) for name in figures.methods]
    better = "higher" if figures.sign > 0 else "lower"
    marked = dict(zip(figures.methods, mark_best(cells, better), strict=True))
    others = {factor: Cell(text=levels[factor]) for factor in shown[1:]}
    order = ", ".join(figures.order(means))
    ends = {"lead": number_cell(figures.lead(means)), "order": Cell(text=order)}
    yield Row(" ".join(levels[factor] for factor in shown), levels["normalize"], {**others, **marked, **ends})


def _cell(values: Sequence[float], most: int) -> Cell:
    if not values:
        return Cell(text="–", reason="no seed has all datasets under every setting")
    std = stdev(values) if len(values) > 1 else None
    flags = (f"{len(values)} of {most} runs",) if len(values) < most else ()
    return Cell(fmean(values), rounded(fmean(values), std), std=std, flags=flags)


def _notes(inputs: ReportInputs) -> list[str]:
    """How often test splits were read for this."""
    output, ids = inputs.request.output, {run.run_id for run in inputs.finished}
    reads = [] if output is None else [read for read in read_reads(output) if read["run_id"] in ids]
    logged = f"; test_reads.jsonl has {len(reads):,} readings of test splits by them" if reads else ""
    return [
        f"Made of {len(ids):,} runs whose test split was scored after every epoch, which are in no other table{logged}."
    ]
