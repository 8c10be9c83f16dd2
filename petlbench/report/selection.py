"""Which results a table may hold: all of one setting, and one configuration in a cell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from petlbench.core.errors import InputError
from petlbench.report.spec import SETTINGS, Setting
from petlbench.results.stored import ALIKE, Stored

__all__ = ["check_alike", "check_cells", "choose", "common_settings", "parse_where"]

_MOST_SHOWN = 6


def parse_where(texts: Iterable[str]) -> dict[str, str]:
    """Read ``KEY=VALUE`` pairs: a field of a run's config, or one of the groups training, method and dataset.

    Raises:
        InputError: When one has another form.
    """
    found = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not (key and equals):
            raise InputError(
                f"--where {text}: not of the form KEY=VALUE",
                hint="for example --where image_size=512 or --where training.lr=0.001",
                kind="bad_setting",
            )
        found[key] = value
    return found


def choose(results: Sequence[Stored], setting: Setting, where: Mapping[str, str], place: str) -> list[Stored]:
    """Take the results of a standard setting that have what was asked for.

    Args:
        results: All of them.
        setting: The standard setting; ``any`` for whichever there is.
        where: Values by key, as `parse_where` gives them.
        place: Where the results lie, in words.

    Raises:
        InputError: When none is left.
    """
    if not results:
        raise InputError(
            f"there are no results in {place}",
            hint="petlbench bench --report NAME runs what a report needs",
            kind="no_results",
        )
    wanted = {**SETTINGS.get(setting, {}), **where}
    left = [one for one in results if all(_same(one.value(key), value) for key, value in wanted.items())]
    if not left:
        asked = ", ".join(f"{key}={value}" for key, value in wanted.items())
        raise InputError(
            f"no result in {place} is of {asked}; there are: {_settings_of(results, list(wanted))}",
            hint="choose what there is with --setting any and --where KEY=VALUE",
            kind="no_results",
        )
    return left


def check_alike(results: Sequence[Stored], but: Iterable[str] = ()) -> None:
    """Check that no two results differ in what a table must have in common.

    Args:
        results: The results.
        but: Keys of `ALIKE` that may differ.

    Raises:
        InputError: When they do; every setting is listed with the number of its results.
    """
    left_out = set(but)
    known = set(map(_texts, results))
    differing = [
        key
        for key, values in zip(ALIKE, zip(*known, strict=True), strict=True)
        if key not in left_out and len(set(values)) > 1
    ]
    if differing:
        settings = len(_counts(results, differing))
        first = differing[0]
        standard = " or --setting as-published|best-practice" if first in SETTINGS["as-published"] else ""
        example = results[0].value(first)
        raise InputError(
            f"the results are of {settings} settings that no table may mix: {_settings_of(results, differing)}",
            hint=f"choose one, for example --where {first}={_plain(example)}{standard}",
            kind="mixed_settings",
        )


def check_cells(results: Sequence[Stored], label: Callable[[Stored], str]) -> None:
    """Check that the results of one cell are repeats of one configuration.

    Args:
        results: Those that would be averaged.
        label: Names the row of a result.

    Raises:
        InputError: When two results of a row on one dataset differ in more than seed and split.
    """
    cells: dict[tuple[str, str], list[Stored]] = {}
    for one in results:
        cells.setdefault((label(one), one.dataset), []).append(one)
    for (row, dataset), runs in cells.items():
        differing = _differences(runs)
        if differing:
            first = differing[0]
            raise InputError(
                f"{row} has runs of several configurations on {dataset}: {_settings_of(runs, differing)}",
                hint=f"choose with --study NAME, or for example --where {first}={_plain(runs[0].value(first))}",
                kind="mixed_settings",
            )


def common_settings(results: Sequence[Stored]) -> dict[str, Any]:
    """What all results have in common of `ALIKE`; None for what differs."""
    known = {_texts(one): one.alike for one in results}
    return {
        key: values[0] if len(set(map(str, values))) == 1 else None
        for key, values in zip(ALIKE, zip(*known.values(), strict=True), strict=True)
    }


def _texts(stored: Stored) -> tuple[str, ...]:
    return tuple(map(str, stored.alike))


def _differences(runs: Sequence[Stored]) -> list[str]:
    flat = [one.setting for one in runs]
    keys = dict.fromkeys(key for one in flat for key in one)
    return [key for key in keys if len({one.get(key) for one in flat}) > 1]


def _settings_of(results: Sequence[Stored], keys: Sequence[str]) -> str:
    counts = _counts(results, keys)
    shown = [
        f"{', '.join(f'{key}={value}' for key, value in zip(keys, values, strict=True))} ({count} results)"
        for values, count in counts.most_common(_MOST_SHOWN)
    ]
    more = len(counts) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def _counts(results: Sequence[Stored], keys: Sequence[str]) -> Counter[tuple[str, ...]]:
    return Counter(tuple(_plain(one.value(key)) for key in keys) for one in results)


def _same(value: Any, asked: str) -> bool:
    if _plain(value) == asked:
        return True
    try:
        return not isinstance(value, bool) and float(value) == float(asked)
    except (TypeError, ValueError):
        return False


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
