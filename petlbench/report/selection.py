"""Which results a table may hold: all of one setting, and one configuration in a cell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from petlbench.core.errors import InputError, unknown_name
from petlbench.report.spec import PRESETS, Preset, ReportCard
from petlbench.report.tasks import tasks_of
from petlbench.results.stored import ALIKE, Stored
from petlbench.results.table import PlannedRuns

_MOST_SHOWN = 6


def parse_where(texts: Iterable[str]) -> dict[str, str]:
    """Read ``KEY=VALUE`` pairs: a field of a run's config, or one of the groups training, method and dataset.

    Raises:
        InputError: When one has another form.
    """
    values = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not (key and equals):
            raise InputError(
                f"--where {text}: not of the form KEY=VALUE",
                hint="for example --where image_size=512 or --where training.lr=0.001",
                kind="bad_setting",
            )
        values[key] = value
    return values


def choose(results: Sequence[Stored], preset: Preset, where: Mapping[str, str], place: str) -> list[Stored]:
    """The results of a standard setting that have the values of ``where`` by key; ``place`` says where they lie.

    Raises:
        InputError: When none is left.
    """
    if not results:
        raise InputError(
            f"there are no results in {place}",
            hint="petlbench bench --report NAME runs what a report needs",
            kind="no_results",
        )
    for key in where:
        if all(run.value(key) is None and key not in run.setting for run in results):
            raise unknown_name("key of --where", key, {name for run in results for name in run.setting})
    values = {**PRESETS.get(preset, {}), **where}
    runs = [run for run in results if all(_same(run.value(key), value) for key, value in values.items())]
    if not runs:
        description = ", ".join(f"{key}={value}" for key, value in values.items())
        raise InputError(
            f"no result in {place} is of {description}; there are: {_settings_of(results, list(values))}",
            hint="choose what there is with --preset any and --where KEY=VALUE",
            kind="no_results",
        )
    return runs


def of_suite(results: Sequence[Stored], card: ReportCard, place: str) -> list[Stored]:
    """The results on a suite's datasets, each under the key of its task; ``place`` says where they lie.

    Raises:
        InputError: When there are results, and none of them is on such a dataset.
    """
    keys = {pair.jpeg: pair.jpeg for pair in card.copies}
    keys |= {task.dataset: task.key for task in tasks_of(card.groups)}
    runs = [replace(run, name=key) for run in results if (key := keys.get(str(run.config["dataset"]))) is not None]
    if results and not runs:
        raise InputError(
            f"no result in {place} is on a dataset of the suite '{card.name}'",
            hint=f"petlbench bench --suite {card.name} --method NAMES runs it",
            kind="no_results",
        )
    return runs


def planned_of_suite(planned: PlannedRuns, card: ReportCard) -> PlannedRuns:
    """What studies plan on a suite's datasets, by the keys of its tasks."""
    names = {name: task.key for task in tasks_of(card.groups) for name in (task.dataset, task.key)}
    reasons = {(m, names[name], seed): why for (m, name, seed), why in planned.reasons.items() if name in names}
    methods = {method for method, _, _ in reasons}
    return replace(
        planned,
        reasons=reasons,
        methods=tuple(name for name in planned.methods if name in methods),
        datasets=tuple(names[name] for name in planned.datasets if name in names),
    )


def check_alike(results: Sequence[Stored], but: Iterable[str] = ()) -> None:
    """Check that no two results differ in what a table must have in common, `ALIKE` but for some keys.

    Raises:
        InputError: When they do; every setting is listed with the number of its results.
    """
    exempt, settings = set(but), _distinct_settings(results)
    columns = zip(ALIKE, *settings, strict=True)
    differing = [key for key, *values in columns if key not in exempt and len(set(values)) > 1]
    if differing:
        count = len(_counts(results, differing))
        standard = " or --preset as-published|best-practice" if differing[0] in PRESETS["as-published"] else ""
        subject, advice = f"the results are of {count} settings that no table may mix", "choose one, "
        raise _mixed(subject, advice, results, differing, standard)


def check_cells(results: Sequence[Stored], label: Callable[[Stored], str]) -> None:
    """Check that the results of one cell are repeats of one configuration.

    Raises:
        InputError: When two results of a row on one dataset differ in more than seed, split and draw.
    """
    cells: dict[tuple[str, str], list[Stored]] = {}
    for run in results:
        cells.setdefault((label(run), run.dataset), []).append(run)
    for (row, dataset), runs in cells.items():
        settings = list({id(run.setting): run.setting for run in runs}.values())
        keys = dict.fromkeys(key for setting in settings for key in setting)
        if differing := [key for key in keys if len({setting.get(key) for setting in settings}) > 1]:
            subject = f"{row} has runs of several configurations on {dataset}"
            raise _mixed(subject, "choose with --study NAME, or ", runs, differing)


def common_settings(results: Sequence[Stored]) -> dict[str, Any]:
    """What all results have in common of `ALIKE`; None for what differs."""
    settings = _distinct_settings(results)
    columns = zip(ALIKE, *settings.values(), strict=True)
    return {key: values[0] if len(set(map(str, values))) == 1 else None for key, *values in columns}


def _distinct_settings(results: Sequence[Stored]) -> dict[tuple[str, ...], tuple[Any, ...]]:
    """The settings of results, by what they are as texts; most results share one."""
    settings = {id(alike): alike for alike in (run.alike for run in results)}
    return {tuple(map(str, alike)): alike for alike in settings.values()}


def _mixed(subject: str, advice: str, runs: Sequence[Stored], keys: Sequence[str], more: str = "") -> InputError:
    return InputError(
        f"{subject}: {_settings_of(runs, keys)}",
        hint=f"{advice}for example --where {keys[0]}={_plain(runs[0].value(keys[0]))}{more}",
        kind="mixed_settings",
    )


def _settings_of(results: Sequence[Stored], keys: Sequence[str]) -> str:
    counts = _counts(results, keys)
    shown = [
        f"{', '.join(f'{key}={value}' for key, value in zip(keys, values, strict=True))} ({count} results)"
        for values, count in counts.most_common(_MOST_SHOWN)
    ]
    more = len(counts) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def _counts(results: Sequence[Stored], keys: Sequence[str]) -> Counter[tuple[str, ...]]:
    return Counter(tuple(_plain(run.value(key)) for key in keys) for run in results)


def _same(value: Any, text: str) -> bool:
    if _plain(value) == text:
        return True
    try:
        return not isinstance(value, bool) and float(value) == float(text)
    except (TypeError, ValueError):
        return False


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
