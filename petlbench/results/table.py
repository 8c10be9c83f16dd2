"""The one table of results: reports, the table that MLflow keeps and a study's summary are views of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, Literal, NotRequired, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from petlbench.core.errors import InputError
from petlbench.core.text import printable
from petlbench.core.user_files import read_json
from petlbench.metrics.efficiency import REFERENCE, References
from petlbench.results.documents import changed
from petlbench.results.folder import results_folder
from petlbench.results.index import stored_results
from petlbench.results.predictions import read_frame
from petlbench.results.result import Result, Scores
from petlbench.results.stored import ALIKE, Stored, names_with

if TYPE_CHECKING:
    import pandas as pd

_logger = logging.getLogger("petlbench")

STUDY_SCHEMA = 1
"""The version of a study's file."""


class _StudyRun(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    method: str
    dataset: str
    seed: int
    draw: NotRequired[int]
    run_id: NotRequired[str | None]
    origin: NotRequired[dict[str, Any]]
    status: NotRequired[str | None]
    error: NotRequired[str | dict[str, Any] | None]


class _Study(TypedDict, total=False):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    methods: list[str]
    datasets: list[str]
    seeds: list[int]
    runs: list[_StudyRun]


_STUDY = TypeAdapter(_Study)

Level = Literal["run", "cell", "epoch", "image"]
_REASONS = {"oom": "out of memory", "already_running": "being worked on", None: "not run"}


@dataclass(frozen=True)
class Spread:
    """Several values of one figure.

    Args:
        mean: Their mean.
        std: Their sample standard deviation, over n − 1; None for a single one.
        count: How many there are.
    """

    mean: float
    std: float | None
    count: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        """Take mean and deviation of the values that are there; None where there are none."""
        numbers = [value for value in values if value is not None]
        if not numbers:
            return None
        return cls(fmean(numbers), stdev(numbers) if len(numbers) > 1 else None, len(numbers))


@dataclass(frozen=True)
class Repeats:
    """A cell of the table: runs of one method on one dataset that differ in seed, split and draw alone.

    Args:
        method: Name of the method.
        dataset: Name of the dataset.
        runs: The runs, at least one.
    """

    method: str
    dataset: str
    runs: tuple[Stored, ...]

    @cached_property
    def finished(self) -> list[Stored]:
        """The runs that ended well, which alone have figures."""
        return [run for run in self.runs if run.finished]

    def spread(self, figure: str) -> Spread | None:
        """Mean and deviation of a figure over the finished runs; None where none has it."""
        return Spread.of(run.figure(figure) for run in self.finished)

    def spreads(self) -> dict[str, Spread]:
        """Mean and deviation of every figure that a finished run has."""
        figures = [run.figures for run in self.finished]
        names = dict.fromkeys(name for each in figures for name in each)
        spreads = {name: Spread.of(each.get(name) for each in figures) for name in names}
        return {name: spread for name, spread in spreads.items() if spread is not None}

    @property
    def memory_sources(self) -> tuple[str, ...]:
        """Where the figures of memory are from."""
        return tuple(sorted({run.document["memory"]["source"] for run in self.finished if run.document.get("memory")}))


@dataclass(frozen=True)
class PlannedRuns:
    """The runs that studies consist of, and what became of them where no result says so.

    Args:
        runs: Ids of all runs.
        reasons: Why there is no result, by method, dataset and seed.
        methods: Methods in the order of the studies.
        datasets: Datasets in that order.
        seeds: Number of seeds; None where no study is known.
    """

    runs: frozenset[str] = frozenset()
    reasons: Mapping[tuple[str, str, int], str] = field(default_factory=dict)
    methods: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    seeds: int | None = None


@dataclass(frozen=True)
class Results:
    """Results that one table shows, with PPE and PME as all of them together give them.

    Args:
        runs: The results, unfinished ones too, in the order of their names.
        references: Finished runs of full fine-tuning, of other studies too.
        planned: What studies plan.
        damaged: What is wrong with each result that was passed over.
    """

    runs: Sequence[Stored]
    references: Sequence[Stored] = ()
    planned: PlannedRuns = field(default_factory=PlannedRuns)
    damaged: tuple[str, ...] = ()

    @classmethod
    def of(cls, runs: Iterable[Stored], studies: Sequence[Mapping[str, Any]] = ()) -> Results:
        """Give results their scores, and their datasets names that differ."""
        stored = list(runs)
        references = References(run.document for run in stored)
        datasets = [str(run.config["dataset"]) for run in stored]
        names = names_with(studies, datasets)
        # A run may be another protocol's, too, than the one that it was carried out under first.
        origins = {
            run.get("run_id"): {"origin": run["origin"]}
            for study in studies
            for run in study.get("runs", [])
            if "origin" in run
        }
        scored = [
            replace(
                run,
                document=changed(run.document, scores=references.scores(run.document), **origins.get(run.run_id, {})),
                name=names[dataset],
            )
            for run, dataset in zip(stored, datasets, strict=True)
        ]
        full = [run for run in scored if run.finished and run.method == REFERENCE and not run.shows_test]
        return cls(scored, full, planned_runs(studies, names))

    def showing_test(self, showing: bool) -> Results:
        """The runs whose test split was scored after every epoch, or all others: no table has both."""
        return replace(self, runs=[run for run in self.runs if run.shows_test == showing])

    def cells(self) -> list[Repeats]:
        """The cells, in the order in which their first runs come."""
        cells: dict[tuple[str, str, str], list[Stored]] = {}
        for run in self.runs:
            cells.setdefault((run.method, run.dataset, repr(run.setting)), []).append(run)
        return [Repeats(method, dataset, tuple(runs)) for (method, dataset, _), runs in cells.items()]

    def to_dataframe(self, level: Level = "run") -> pd.DataFrame:
        """The table as a DataFrame.

        Args:
            level: What a row is: a ``run``; a ``cell``, with mean, sample standard deviation (``…_std``) and the number
                ``n`` of finished runs; an ``epoch`` of a run's curve; or an ``image`` of a run's kept predictions.

        Returns:
            A row each, those of a cell, an epoch or an image with what tells their runs apart in front.

        Raises:
            InputError: When there is no such level, or predictions are damaged.
        """
        import pandas as pd

        if level == "image":
            return _images(self)
        if level not in _ROWS:
            hint = f"give one of {', '.join(get_args(Level))}"
            raise InputError(f"there is no level '{level}'", hint=hint, kind="unknown_level")
        return pd.DataFrame(list(_ROWS[level](self)))


def load_results(folder: Path | str, study: str | None = None) -> Results:
    """Read the results right below a folder, with their scores; a damaged one is named in a warning and passed over.

    Args:
        folder: Folder of all results.
        study: Name of one study, whose runs are taken alone, and those of the studies that begin with it and a dot;
            None for all results.

    Raises:
        InputError: When there is no such folder or study.
    """
    output = results_folder(folder)
    results = _read(output, list(read_studies(output, study).values()))
    if study is None:
        return results
    return replace(results, runs=[run for run in results.runs if run.run_id in results.planned.runs])


def load_trials(output: Path) -> Results:
    """Read the trials of all searches that wrote to a folder; none where there are none."""
    return _read(output / "trials")


def read_studies(output: Path, name: str | None) -> dict[str, dict[str, Any]]:
    """The documents of studies by name.

    Args:
        output: Folder of all results.
        name: Name of one study, which takes in those that begin with it and a dot; None for all.

    Raises:
        InputError: When there is no such study, or its file is damaged; of all, a damaged one is passed over.
    """
    files = sorted((output / "studies").glob("*.json"))
    matching = [file for file in files if name is None or file.stem == name or file.stem.startswith(f"{name}.")]
    if name is not None and not matching:
        names = ", ".join(file.stem for file in files) or "none"
        raise InputError(
            f"--study {name}: {output / 'studies'} has no such study", hint=f"known: {names}", kind="unknown_study"
        )
    if name is not None:
        return {file.stem: read_study(file) for file in matching}
    documents = {}
    for file in matching:
        try:
            documents[file.stem] = read_study(file)
        except InputError as error:
            _logger.warning("passed over: %s", error.message)
    return documents


def planned_runs(studies: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> PlannedRuns:
    """Sum up the files of studies."""
    runs = [run for study in studies for run in study.get("runs", [])]
    return PlannedRuns(
        frozenset(run["run_id"] for run in runs if run.get("run_id")),
        {(run["method"], names[run["dataset"]], int(run["seed"])): _reason(run) for run in runs},
        tuple(dict.fromkeys(method for study in studies for method in study.get("methods", []))),
        tuple(dict.fromkeys(names[dataset] for study in studies for dataset in study.get("datasets", []))),
        max((len(study.get("seeds", [])) for study in studies), default=None) or None,
    )


def reason_of(status: str | None, message: str = "") -> str:
    """Why there is no figure, in words."""
    word = _REASONS.get(status, str(status))
    return f"{word}: {message}" if message and status is not None else word


def _reason(run: Mapping[str, Any]) -> str:
    error = run.get("error") or ""
    return reason_of(run.get("status"), error.get("message", "") if isinstance(error, Mapping) else str(error))


def read_study(file: Path) -> dict[str, Any]:
    """Return the document of a study: ``name``, ``kind``, ``created``, ``methods``, ``datasets``, ``seeds``, ``runs``.

    Raises:
        InputError: When it is damaged or newer than this petlbench.
    """
    hint = "remove it and give the command that made it again; no run is lost"
    try:
        document = read_json(file, what="study")
        if isinstance(schema := document.get("schema"), int) and schema > STUDY_SCHEMA:
            raise InputError(f"{file} was written by a newer petlbench", hint="update petlbench", kind="bad_study")
        _STUDY.validate_python(document, strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(map(str, fault["loc"]))
        message = f"{file} is damaged: {printable(place)}: {printable(fault['msg'])}"
        raise InputError(message, hint=hint, kind="bad_study") from error
    except InputError as error:
        raise InputError(error.message, hint=error.hint or hint, kind="bad_study") from error
    return document


def mean_curve(
    curves: Iterable[Iterable[Mapping[str, Any]]], figure: str, factor: float = 1
) -> dict[int, tuple[float, float, float]]:
    """Mean, lowest and highest of a figure over the curves of runs, by epoch; epochs at which none has it are left out.

    Args:
        curves: The epochs of each run, as `petlbench.results.result.Result` has them.
        figure: Its name there, such as ``val_auc``.
        factor: What it is multiplied by.
    """
    points: dict[int, list[float]] = {}
    for entry in (entry for curve in curves for entry in curve if "epoch" in entry):
        if isinstance(value := entry.get(figure), int | float):
            points.setdefault(int(entry["epoch"]), []).append(factor * value)
    return {epoch: (fmean(values), min(values), max(values)) for epoch, values in sorted(points.items())}


def searches(trials: Iterable[Stored]) -> dict[tuple[str, str], list[Stored]]:
    """The trials proper by method and dataset: those with a search's first seed, as only the best have further ones."""
    by_search: dict[tuple[str, str], list[Stored]] = {}
    for trial in trials:
        by_search.setdefault((trial.method, trial.dataset), []).append(trial)
    first = {key: min(trial.seed for trial in runs) for key, runs in by_search.items()}
    return {key: [trial for trial in runs if trial.seed == first[key]] for key, runs in by_search.items()}


def with_scores(results: Iterable[Result], output: Path) -> list[Result]:
    """Weigh results by what stands beside them now; what they were stored with is of the time when their runs ended.

    Returns:
        The same results with the PPE and PME that every table shows.
    """
    references = References(run.document for run in stored_results(output, REFERENCE))
    return [result.model_copy(update={"scores": Scores(**references.scores(result.document()))}) for result in results]


def _read(folder: Path, studies: Sequence[Mapping[str, Any]] = ()) -> Results:
    damaged: list[str] = []
    stored = stored_results(folder, on_damage=lambda error: damaged.append(error.message))
    for message in damaged:
        _logger.warning("passed over: %s", message)
    return replace(Results.of(stored, studies), damaged=tuple(damaged))


def _identity(run: Stored) -> dict[str, Any]:
    names = {"run_id": run.run_id, "status": run.status, "method": run.method, "dataset": run.dataset}
    return {**names, "seed": run.seed, "split": run.split, "draw": run.draw}


def _runs(results: Results) -> Iterator[dict[str, Any]]:
    for run in results.runs:
        yield {**_identity(run), **dict(zip(ALIKE, run.alike, strict=True)), **run.figures}


def _cells(results: Results) -> Iterator[dict[str, Any]]:
    for cell in results.cells():
        row = {"method": cell.method, "dataset": cell.dataset, **dict(zip(ALIKE, cell.runs[0].alike, strict=True))}
        row |= {"n": len(cell.finished), "unfinished": len(cell.runs) - len(cell.finished)}
        for name, spread in cell.spreads().items():
            row |= {name: spread.mean, f"{name}_std": spread.std}
        yield row


def _epochs(results: Results) -> Iterator[dict[str, Any]]:
    for run in results.runs:
        yield from ({**_identity(run), **entry} for entry in run.document.get("curve") or ())


def _images(results: Results) -> pd.DataFrame:
    import pandas as pd

    frames = []
    for run in results.runs:
        frame = None if run.predictions_file is None else read_frame(run.predictions_file)
        if frame is not None:
            # The frame's own "split" is that of the image; the run's is how the dataset was split.
            frames.append(frame.assign(**{name: _identity(run)[name] for name in _OF_IMAGE})[[*_OF_IMAGE, *frame]])
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


_OF_IMAGE = ("run_id", "method", "dataset", "seed")
_ROWS: Mapping[str, Callable[[Results], Iterator[dict[str, Any]]]] = {"run": _runs, "cell": _cells, "epoch": _epochs}
