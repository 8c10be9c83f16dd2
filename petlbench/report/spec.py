"""Reports as files: which study a report needs, and what it shows; the kinds they are of; what a user asks of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from petlbench.core.catalog import Catalog
from petlbench.core.entry import Card, Entry, Kind
from petlbench.core.errors import InputError, unknown_name
from petlbench.report.bundle.opened import is_bundle, results_folder
from petlbench.report.tasks import Task, TaskGroup, fault_of, tasks_of

if TYPE_CHECKING:
    from petlbench.report.document import Figure
    from petlbench.report.formats import Document
    from petlbench.report.inputs import ReportInputs
    from petlbench.report.kinds.papers import PaperTable

Preset = Literal["as-published", "best-practice", "any"]
Unit = Literal["image", "group"]

DEFAULT_METRIC = "auc"
"""The score that is shown where neither a report nor its reader names one."""

SUITE = "suite"
"""The kind of report whose files are suites."""

PRESETS: Mapping[str, Mapping[str, str]] = {
    "as-published": {"precision": "fp16", "attention_kernel": "eager"},
    "best-practice": {"precision": "bf16", "attention_kernel": "fused"},
}
"""What the two standard settings fix; no table mixes them."""


@dataclass(frozen=True)
class ReportKind(Card):
    """A kind of report: what ``kind`` in a report's file names.

    Args:
        build: Makes the report of its inputs.
        needs: Fields of the report's file that must not be empty.
        by_group: Whether its scores can be those of groups (patients) as well as of images.
        printed_figure: Draws a paper's printed table as the request asks for it; None where nothing is drawn.
        shows_cost: Whether it has a figure of scores against a cost, which the request's ``x`` chooses.
        shows_test: Whether it is made of runs whose test split was scored after every epoch; no other has any of them.
        build_others: Makes the report of scores that others print or have measured; None where it cannot.
    """

    kind: ClassVar[Kind] = "report_kind"

    build: Callable[[ReportInputs], Document]
    needs: tuple[str, ...] = ()
    by_group: bool = False
    printed_figure: Callable[[PaperTable, ReportInputs], Figure] | None = None
    shows_test: bool = False
    shows_cost: bool = False
    build_others: Callable[[ReportInputs], Document] | None = None


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Variant(_Part):
    """A row of a report that compares settings of methods."""

    title: str = Field(description="what stands in front of the row")
    method: str = Field(description="name of the method")
    settings: Mapping[str, Any] = Field(default={}, description="what tells rows of a method apart; each names all")
    preload: bool | None = Field(default=None, description="whether features are preloaded; None: does not matter")
    published: str = Field(default="", description="the row's label in the papers' table; empty for the title")


class Copies(_Part):
    """One dataset in two forms, which a report compares."""

    lossless: str = Field(min_length=1, description="name of the dataset whose pixels are those of the source")
    jpeg: str = Field(min_length=1, description="name of its copy that is stored with loss")


class StudyCard(_Part):
    """The study that a report needs."""

    methods: tuple[str, ...] = Field(default=(), description="names of methods, in the order of the rows")
    datasets: tuple[str, ...] = Field(default=(), description="names of datasets, in the order of the columns")
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), description="seeds")
    shots: tuple[int, ...] = Field(default=(), description="numbers of images of each class to train on")
    train_fractions: tuple[float, ...] = Field(default=(), description="shares of the training split to train on")
    draws: tuple[int, ...] = Field(default=(), description="draws of few labels, from 0")
    request: Mapping[str, Any] = Field(default={}, description="of all runs, as petlbench.run.resolve.Request names it")
    settings: Mapping[str, Mapping[str, Any]] = Field(default={}, description="of single methods or datasets, by name")
    protocol: str = Field(default="", description="of groups: the protocol that their runs are under, with its seeds")


class ReportCard(_Part):
    """A report as its file describes it."""

    name: str = Field(description="its name in the catalogue")
    title: str = Field(description="what stands above it")
    kind: str = Field(description="name of the report kind that makes it")
    summary: str = Field(default="", description="what it shows, in a sentence")
    columns: tuple[str, ...] = Field(default=(), description="keys of the columns, in their order")
    against: str = Field(default="", description="the method that the others are compared with; empty for none")
    metric: str = Field(default=DEFAULT_METRIC, description="the score that it shows where --metric names none")
    study: StudyCard = Field(default=StudyCard(), description="what it needs")
    groups: tuple[TaskGroup, ...] = Field(default=(), description="of a suite: its datasets by group, in their order")
    copies: tuple[Copies, ...] = Field(default=(), description="datasets that are there with and without loss")
    variants: tuple[Variant, ...] = Field(default=(), description="its rows, where they are settings of methods")
    sizes: tuple[int, ...] = Field(default=(), description="image sizes in pixels, where these are what is varied")
    by: tuple[str, ...] = Field(default=(), description="columns that make subgroups, where --by names none")
    specificity: float = Field(default=0.9, description="at which thresholds are chosen, where they are")
    thresholds: tuple[float, float] = Field(
        default=(0.01, 0.5), description="the least and the greatest probability of a decision curve, in hundredths"
    )

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the datasets of its study, in the order of the columns."""
        names = self.study.datasets or tuple(task.dataset for task in tasks_of(self.groups))
        return (*names, *(pair.jpeg for pair in self.copies))

    @field_validator("groups")
    @classmethod
    def _check_names(cls, groups: tuple[TaskGroup, ...]) -> tuple[TaskGroup, ...]:
        if fault := fault_of(groups):
            raise ValueError(fault)
        return groups

    @field_validator("thresholds")
    @classmethod
    def _check_thresholds(cls, thresholds: tuple[float, float]) -> tuple[float, float]:
        if not 0.01 <= thresholds[0] < thresholds[0] + 0.01 <= thresholds[1] <= 0.99:
            raise ValueError("the first is at least 0.01, the second at most 0.99, and they are 0.01 apart or more")
        return thresholds


@dataclass(frozen=True)
class ReportRequest:
    """What a user asks of a report.

    Args:
        results: A folder, a bundle, ``mlflow:URI``, ``papers:NAME``, or a CSV of scores that others have.
        study: Name of a study; None for all results.
        preset: The standard setting.
        where: Values of the runs' configs by key.
        compare: Whether the papers' figures stand beside.
        columns: Keys of further columns.
        metric: The score; None for the report's own.
        figure: The figure of memory.
        against: The method that the others are compared with; None for the report's own.
        audits: Folder of stored audits; None for ``audits`` in the folder of the results.
        x: The cost that a figure shows to the right: memory, parameters or time; None for the report's own.
        decimals: Decimals of scores; None for as many as their deviations leave.
        measured: Whether memory is that of the results rather than predicted.
        unit: What scores count: images, or groups (patients, lesions).
        by: Columns of the datasets' tables that make subgroups, with edges as `petlbench.data.attributes` reads them.
    """

    results: str = "results"
    study: str | None = None
    preset: Preset = "any"
    where: Mapping[str, str] = field(default_factory=dict)
    compare: bool = False
    columns: Sequence[str] = ()
    metric: str | None = None
    figure: str = "allocated"
    against: str | None = None
    audits: Path | None = None
    x: str | None = None
    decimals: int | None = None
    measured: bool = False
    unit: Unit = "image"
    by: Sequence[str] = ()

    @property
    def output(self) -> Path | None:
        """The folder of the results, that of an unpacked bundle too; None where they are elsewhere."""
        elsewhere = self.results.startswith(("mlflow:", "papers:")) or self.scores is not None
        return None if elsewhere else results_folder(self.results)

    @property
    def folder(self) -> Path | None:
        """The folder of the results where it is the user's own; None for others."""
        return None if is_bundle(self.results) else self.output

    @property
    def scores(self) -> Path | None:
        """The CSV of scores that others have; None for other sources."""
        path = Path(self.results)
        return path if path.suffix.lower() == ".csv" and not path.is_dir() else None

    @property
    def paper(self) -> str | None:
        """The paper that ``papers:NAME`` names; None for other sources."""
        return self.results.removeprefix("papers:") if self.results.startswith("papers:") else None


def load_report(catalog: Catalog, name: str) -> ReportCard:
    """Read a report's file.

    Raises:
        InputError: When nothing has that name, or the file is wrong.
    """
    entry = catalog.find("report", name)
    try:
        card = ReportCard.model_validate({**entry.card, "name": name})
    except ValidationError as error:
        raise _broken(entry, _first(error)) from error
    kinds = catalog.entries("report_kind")
    if card.kind not in kinds:
        raise _broken(entry, f"kind = '{card.kind}' is none of {', '.join(kinds)}")
    for need in catalog.load("report_kind", card.kind, ReportKind).needs:
        if not getattr(card, need):
            raise _broken(entry, f"a report of the kind '{card.kind}' needs [[{need}]]")
    return card


def suites(catalog: Catalog) -> dict[str, Entry]:
    """The suites by name: reports of that kind."""
    return {name: entry for name, entry in catalog.entries("report").items() if entry.card.get("kind") == SUITE}


def load_suite(catalog: Catalog, name: str) -> ReportCard:
    """Read a suite's file, as `load_report` does.

    Raises:
        InputError: When nothing has that name, the file is wrong, or it is another report.
    """
    names = suites(catalog)
    if name not in names:
        raise unknown_name("suite", name, names)
    return load_report(catalog, name)


def required_study(card: ReportCard, preset: Preset = "any") -> list[dict[str, Any]]:
    """What a report needs, for `petlbench bench --report`.

    Args:
        card: The report.
        preset: The standard setting of its runs; ``any`` leaves precision and attention as they are.

    Returns:
        One or more of ``methods`` (none of a suite that leaves them to the user), ``datasets``, ``seeds``, ``draws``,
        ``parts`` (of the training split, each as fields of a request), ``settings`` (of one method or dataset, by its
        name) and ``request`` (fields of `petlbench.core.request.Request` that hold for all runs); none where it needs
        no run.
    """
    study = card.study
    request = {**study.request, **PRESETS.get(preset, {})}
    parts: list[dict[str, float]] = [{"shots": shots} for shots in study.shots]
    parts += [{"train_fraction": fraction} for fraction in study.train_fractions]
    base = {"datasets": list(card.datasets), "seeds": list(study.seeds), "draws": list(study.draws)}
    base |= {"parts": parts or [{}]}
    by_name = {name: dict(values) for name, values in study.settings.items()}
    if not card.datasets:
        return []
    matrices: list[dict[str, Any]] = []
    if study.methods or card.groups:
        matrices.append({**base, "methods": list(study.methods), "settings": by_name, "request": request})
    for variant in card.variants:
        settings = {**by_name, variant.method: {**by_name.get(variant.method, {}), **variant.settings}}
        own = request if variant.preload is None else {**request, "preload": variant.preload}
        matrices.append({**base, "methods": [variant.method], "settings": settings, "request": own})
    if card.sizes:
        matrices = [{**m, "request": {**m["request"], "image_size": size}} for m in matrices for size in card.sizes]
    return matrices


def _first(error: ValidationError) -> str:
    """What is wrong first, with the place in the file."""
    first = error.errors()[0]
    *group, _ = first["loc"]
    place = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        parts: dict[str, type[BaseModel]] = {"study": StudyCard, "variants": Variant}
        parts |= {"groups": TaskGroup, "copies": Copies}
        model = Task if "tasks" in group else parts[str(group[0])] if group else ReportCard
        unknown = unknown_name("field", place, [".".join(map(str, (*group, name))) for name in model.model_fields])
        return f"{unknown.message}; {unknown.hint}"
    fault = first["msg"].removeprefix("Value error, ")
    refusal = f"is refused: {fault}" if place == "groups" else f"= {first['input']!r}: {fault}"
    text = {"missing": "is missing", "model_type": "is no table"}.get(first["type"], refusal)
    return f"'{place}' {text}"


def _broken(entry: Entry, why: str) -> InputError:
    return InputError(
        f"the report file {entry.file} is broken: {why}",
        hint="correct the file; docs/reports.md describes it",
        kind="broken_catalog",
    )
