"""Many studies on one page: a table for each dataset in each setting, with ranks and what cannot be told apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.core.progress import Progress
from petlbench.core.text import printable
from petlbench.metrics.metric import Metric
from petlbench.report.alignment import align
from petlbench.report.bundle.opened import is_bundle, results_folder
from petlbench.report.cells import mark_rows
from petlbench.report.columns import find_metric, make_columns
from petlbench.report.context import Context, Grid, Line
from petlbench.report.document import Cell, Column, Row, Table
from petlbench.report.formats import Document
from petlbench.report.kinds.methods import TIME_NOTE, describe_settings
from petlbench.report.selection import common_settings
from petlbench.report.spec import DEFAULT_METRIC
from petlbench.results.result import FILE
from petlbench.results.stored import ALIKE, Stored
from petlbench.results.table import load_results
from petlbench.statistics.ranks import inseparable_groups, rank_intervals, separable_pairs

_LEVEL = 0.05
_OVER = "over datasets"
_FIRST = (Column("rank", "rank", numeric=False), Column("apart", "not told apart", numeric=False))
_LAST = (Column("runs", "runs"), Column("study", "study", numeric=False))
_NOTE = (
    "Rank: the best and the worst that the runs leave possible, for all rows at once with 95 % confidence (Holm over "
    "all pairs). Rows that share a letter cannot be told apart. " + TIME_NOTE
)


@dataclass(frozen=True)
class _Entry:
    """A run, and the study that it is from."""

    run: Stored
    source: str


@dataclass
class _Edition:
    """A dataset as some studies have it: those of one name that are split otherwise are others.

    Args:
        name: What it is called in tables.
        splits: The digest of each split that runs have.
        entries: The runs.
    """

    name: str
    splits: dict[str, str] = field(default_factory=dict)
    entries: list[_Entry] = field(default_factory=list)

    def takes(self, splits: Mapping[str, str]) -> bool:
        """Whether these are splits of the same images: they share some, and all of these agree."""
        shared = self.splits.keys() & splits.keys()
        return bool(shared) and all(self.splits[name] == splits[name] for name in shared)


def build_board(places: Sequence[Path], metric: str | None, catalog: Catalog, progress: Progress) -> Document:
    """Put studies side by side.

    Args:
        places: Folders of results, bundles, and folders of either.
        metric: Name of the score; None for the AUC.
        catalog: The catalogues.
        progress: Told of every table.

    Raises:
        InputError: When there is no finished run with that score, or a place cannot be read.
    """
    score = find_metric(catalog, metric or DEFAULT_METRIC)
    sources = _sources(places)
    entries, notes = _entries(sources, score)
    if not entries:
        raise InputError(
            f"there is no finished run with the score '{score.name}' in {', '.join(map(str, places))}",
            hint="name folders that --output of bench named, or bundles of petlbench pack",
            kind="no_results",
        )
    settings: dict[tuple[str, ...], list[_Edition]] = {}
    for edition in _editions(entries):
        for setting, members in _by_setting(edition.entries).items():
            settings.setdefault(setting, []).append(_Edition(edition.name, entries=members))
    titles = {name: entry.title for name, entry in catalog.entries("method").items()}
    progress.phase("comparing", len(settings))
    tables: list[Table] = []
    for words, editions in zip(_told_apart(list(settings)), settings.values(), strict=True):
        boards = [_Board([edition], words, score, titles) for edition in editions]
        whole = _Board(editions, words, score, titles)
        boards += [whole] if len(editions) > 1 and len(whole.lines) > 1 else []
        tables += [board.table(f"board-{len(tables) + number}") for number, board in enumerate(boards, 1)]
        progress.advance()
    source = f"{len(sources)} studies: {', '.join(sources)}"
    return Document("board", "Board", tables, notes=[_NOTE, *notes], source=source, settings={"metric": score.name})


def _sources(places: Sequence[Path]) -> dict[str, Path]:
    """The folders of results by a name of the study."""
    folders: dict[str, Path] = {}
    for place in places:
        below = [*place.glob("*.zip"), *{file.parents[1] for file in place.glob(f"*/*/{FILE}")}]
        studies = [place] if is_bundle(place) or any(place.glob(f"*/{FILE}")) else sorted(below)
        if not studies:
            raise InputError(
                f"{printable(str(place))} is no folder of results, no bundle, and has none of these in it",
                hint="name folders that --output of bench named, or bundles of petlbench pack",
                kind="no_results",
            )
        for source in studies:
            name = source.stem if is_bundle(source) else source.absolute().name
            names = (name, *(f"{name} ({number})" for number in range(2, len(folders) + 3)))
            folders[next(each for each in names if each not in folders)] = results_folder(source)
    return folders


def _entries(sources: Mapping[str, Path], metric: Metric) -> tuple[list[_Entry], list[str]]:
    """Every finished run with the score, once under each protocol, and notes on what is left out."""
    entries: dict[tuple[str, str], _Entry] = {}
    twice, without, damaged = 0, 0, 0
    for source, folder in sources.items():
        results = load_results(folder).showing_test(False)
        damaged += len(results.damaged)
        for run in results.runs:
            if run.finished and run.score(metric.name) is None:
                without += 1
            elif run.finished:
                twice += (run.run_id, run.protocol) in entries
                entries.setdefault((run.run_id, run.protocol), _Entry(run, source))
    notes = {
        f"Left out, {without}: runs without the score {metric.title}.": without,
        f"In several studies, and shown once: {twice} runs.": twice,
        f"Passed over as damaged: {damaged} results.": damaged,
    }
    return list(entries.values()), [note for note, count in notes.items() if count]


def _editions(entries: Sequence[_Entry]) -> list[_Edition]:
    """The datasets, of which those of one name that were split otherwise are told apart."""
    parts: dict[tuple[str, str], list[_Entry]] = {}
    for entry in entries:
        parts.setdefault((entry.run.dataset, entry.source), []).append(entry)
    editions: dict[str, list[_Edition]] = {}
    for (name, _), members in parts.items():
        splits = {each.run.split: str(each.run.document["digests"].get("split", "")) for each in members}
        known = editions.setdefault(name, [])
        edition = next((each for each in known if each.takes(splits)), None)
        if edition is None:
            title = str(members[0].run.document["data"].get("title") or name)
            edition = _Edition(f"{title} ({len(known) + 1}: split otherwise)" if known else title)
            known.append(edition)
        edition.splits |= splits
        edition.entries += members
    return [edition for each in editions.values() for edition in each]


def _by_setting(entries: Sequence[_Entry]) -> dict[tuple[str, ...], list[_Entry]]:
    """Runs that one table may hold: alike in all that tables never mix, and in how they are split."""
    settings: dict[tuple[str, ...], list[_Entry]] = {}
    for entry in entries:
        key = (*map(str, entry.run.alike), str(entry.run.config["split"]).partition("/")[0])
        settings.setdefault(key, []).append(entry)
    return settings


def _told_apart(settings: Sequence[tuple[str, ...]]) -> list[str]:
    """What tells the settings of a page apart beside backbone and protocol, in words; each empty where nothing does."""
    names = (*ALIKE, "split")
    differing = [
        place
        for place, name in enumerate(names)
        if name not in ("backbone", "protocol") and len({setting[place] for setting in settings}) > 1
    ]
    words = [name.removeprefix("training.").replace("_", " ") for name in names]
    return [", ".join(f"{words[place]} {setting[place]}" for place in differing) for setting in settings]


@dataclass(frozen=True)
class _Board:
    """Runs of one setting on a dataset, or on several.

    Args:
        editions: The datasets.
        words: What tells the setting from others of the page.
        metric: The score.
        titles: What methods are called, by name.
    """

    editions: Sequence[_Edition]
    words: str
    metric: Metric
    titles: Mapping[str, str]

    @cached_property
    def lines(self) -> list[Line]:
        """The rows that all datasets have: methods, and of one with several configurations on a dataset, each."""
        lines: dict[str, Line] = {}
        for edition in self.editions:
            by_method: dict[str, dict[str, list[Stored]]] = {}
            for entry in edition.entries:
                by_method.setdefault(entry.run.method, {}).setdefault(repr(entry.run.setting), []).append(entry.run)
            for method, by_setting in by_method.items():
                for runs, words in zip(by_setting.values(), _differences(by_setting.values()), strict=True):
                    title = ", ".join(filter(None, (self.titles.get(method, method), words)))
                    key = f"{method} {words}".strip()
                    line = lines.setdefault(key, Line(key, title, method))
                    lines[key] = replace(line, runs={**line.runs, edition.name: runs})
        return [line for line in lines.values() if len(line.runs) == len(self.editions)]

    def table(self, key: str) -> Table:
        """The table, the best row first."""
        names = [edition.name for edition in self.editions]
        context = Context(
            Grid(self.lines, names, dict(zip(names, names, strict=True))),
            [],
            self.metric,
            Stored.predictions,
            "allocated",
            {},
        )
        average = ("average",) if len(names) > 1 else ()
        makers = make_columns(("datasets", *average, "learnable", "memory", "time"), context)
        columns = [column for column, _ in makers]
        rows = [line.row({column.key: make(line, context) for column, make in makers}) for line in self.lines]
        by_key = {row.key: row for row in mark_rows(rows, columns)}
        sources = {entry.run.run_id: entry.source for edition in self.editions for entry in edition.entries}
        table_rows = [_row(by_key[name], cells, sources) for name, cells in _places(context).items()]
        every = (*_FIRST, *columns, *_LAST)
        return align(Table(key, columns=every, rows=table_rows, **self._words(context), facets=self._facets))

    @property
    def _facets(self) -> dict[str, str]:
        run = self.editions[0].entries[0].run
        dataset = self.editions[0].name if len(self.editions) == 1 else _OVER
        return {"dataset": dataset, "backbone": str(run.value("backbone")), "protocol": run.protocol or "none"}

    def _words(self, context: Context) -> dict[str, Any]:
        """Title and caption."""
        facets = self._facets
        dataset = facets["dataset"] if len(self.editions) == 1 else f"{len(self.editions)} datasets"
        protocol = f"protocol {facets['protocol']}" if facets["protocol"] != "none" else "no protocol"
        title = ", ".join(filter(None, (dataset, facets["backbone"], protocol, self.words)))
        settings = describe_settings(common_settings(context.grid.all_runs))
        return {
            "title": title,
            "caption": f"{context.metric_title} of the test split. Setting: {settings}.",
        }


def _differences(cells: Iterable[Sequence[Stored]]) -> list[str]:
    """What tells configurations of a method apart, in words; nothing where there is one."""
    runs = [cell[0] for cell in cells]
    keys = dict.fromkeys(key for run in runs for key in run.setting)
    differing = [key for key in keys if len({run.setting.get(key) for run in runs}) > 1]
    return [", ".join(f"{key} {run.setting.get(key)}" for key in differing) for run in runs]


def _places(context: Context) -> dict[str, dict[str, Cell]]:
    """Rank and letters of each row, the best row first."""
    evidence, lines = context.evidence, context.grid.lines
    sign = -1 if context.metric.direction == "higher" else 1
    order = sorted((line.key for line in lines), key=lambda key: sign * (context.averages[key].value or 0.0))
    p_values = {}
    for pair in combinations(order, 2):
        average = evidence.average(*pair)
        p_value = None if average is None else average.here.p_value
        p_values[frozenset(pair)] = 1.0 if p_value is None else p_value
    ranks = rank_intervals(order, p_values, _LEVEL)
    groups = inseparable_groups(order, separable_pairs(p_values, _LEVEL))
    cells = {}
    for key in order:
        letters = " ".join(_letter(number) for number, group in enumerate(groups) if key in group)
        low, high = ranks[key]
        text = str(low) if low == high else f"{low} to {high}"
        cells[key] = {"rank": Cell(low, text), "apart": Cell(text=letters)}
    return cells


def _letter(number: int) -> str:
    turn, place = divmod(number, len(ascii_lowercase))
    return ascii_lowercase[place] + (str(turn) if turn else "")


def _row(row: Row, places: Mapping[str, Cell], sources: Mapping[str, str]) -> Row:
    studies = dict.fromkeys(sources[run] for run in row.runs)
    more = {"runs": Cell(len(row.runs), str(len(row.runs))), "study": Cell(text=", ".join(studies))}
    return Row(row.key, row.title, {**places, **row.cells, **more}, runs=row.runs)
