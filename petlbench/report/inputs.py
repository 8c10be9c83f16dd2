"""What a report is made from: its card, the request, and stored results, which are read when something asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.core.progress import Progress
from petlbench.core.text import printable
from petlbench.metrics.metric import Metric
from petlbench.report.alignment import align
from petlbench.report.audits import StoredAudit, read_audits
from petlbench.report.columns import OPTIONAL, find_metric
from petlbench.report.context import Context, build_grid
from petlbench.report.document import Figure, Table
from petlbench.report.formats import Document
from petlbench.report.look import Look
from petlbench.report.selection import choose, common_settings, of_suite, planned_of_suite
from petlbench.report.spec import ReportCard, ReportKind, ReportRequest
from petlbench.report.units import runs_by, titled
from petlbench.results.documents import changed
from petlbench.results.journal import read_reads
from petlbench.results.predictions import Predictions
from petlbench.results.stored import Stored
from petlbench.results.table import PlannedRuns, Results, load_results, load_trials

_MOST_DAMAGED = 10
_SCORED_OFTEN = "scored the test split after every epoch"
_SHOW_AUDIT = "petlbench report sensitivity shows them"
_RUN_AUDIT = "petlbench bench --protocol audit --vary normalize=half,imagenet,none runs what it needs"


@dataclass(frozen=True)
class ReportInputs:
    """What a report is made from."""

    card: ReportCard
    request: ReportRequest
    catalog: Catalog
    progress: Progress = field(default_factory=Progress)
    damage: list[str] = field(default_factory=list)
    """What was passed over as damaged, beside whole results."""

    @cached_property
    def results(self) -> Sequence[Stored]:
        """Results of the setting that was asked for, unfinished ones too, with the scores of the unit."""
        return runs_by(self.request.unit, self.chosen, self.metric, self.catalog)

    @cached_property
    def metric(self) -> Metric:
        """The score, which tables show in percent."""
        return titled(find_metric(self.catalog, self.metric_name), self.request.unit)

    @property
    def metric_name(self) -> str:
        """Name of the score: that which was asked for, or the report's own."""
        return self.request.metric or self.card.metric

    @cached_property
    def chosen(self) -> Sequence[Stored]:
        """Results of the setting that was asked for, as they are stored.

        Raises:
            InputError: When there are none.
        """
        place = self.request.results
        if not self.stored.runs and (self.stored.damaged or self._all.runs):
            of_kind = _RUN_AUDIT if self._kind.shows_test else _SHOW_AUDIT
            raise InputError(
                f"there are no results in {place} for the report '{self.card.name}'. {' '.join(self.passed_over())}",
                hint="petlbench results rm removes damaged ones" if self.stored.damaged else of_kind,
                kind="no_results",
            )
        runs = self.stored.runs if not self.card.groups else of_suite(self.stored.runs, self.card, place)
        return choose(runs, self.request.preset, self.request.where, place)

    @property
    def finished(self) -> list[Stored]:
        """Results of runs that ended well."""
        return [run for run in self.results if run.finished]

    @property
    def planned(self) -> PlannedRuns:
        """What studies asked for."""
        planned = self.stored.planned
        return planned if not self.card.groups else planned_of_suite(planned, self.card)

    @cached_property
    def trials(self) -> Sequence[Stored]:
        """Trials of the searches of all studies."""
        if self.request.output is None:
            return ()
        trials = load_trials(self.request.output)
        self.damage.extend(trials.damaged)
        return trials.runs

    @cached_property
    def audits(self) -> Mapping[str, StoredAudit]:
        """Stored audits by dataset."""
        output = self.request.output
        folder = self.request.audits or (None if output is None else output / "audits")
        if self.request.audits is not None and not self.request.audits.is_dir():
            raise InputError(
                f"--audits {printable(str(folder))}: there is no such folder",
                hint="petlbench data audit NAME --json > DIR/NAME.json writes one",
                kind="bad_audit",
            )
        return {} if folder is None or not folder.is_dir() else read_audits(folder, self.damage.append)

    def predictions(self, run: Stored, split: str) -> Predictions | None:
        """What a run has kept of a split, read anew; None where it kept none, or only what is damaged."""
        try:
            return run.predictions(split)
        except InputError as error:
            self.damage.append(error.message)
            return None

    @cached_property
    def titles(self) -> Mapping[str, str]:
        """What methods and datasets are called in tables, by name."""
        kinds = (self.catalog.entries("dataset"), self.catalog.entries("method"))
        return {name: entry.title for entries in kinds for name, entry in entries.items()}

    @cached_property
    def context(self) -> Context:
        """The results in rows and columns, and what figures follow from them."""
        request, output = self.request, self.request.output
        grid = build_grid(self.card, self.results, self.planned, self.catalog)
        runs = grid.all_runs
        columns = {name for key in request.columns for name in OPTIONAL.get(key, (key,))}
        return Context(
            grid,
            [run for run in self.stored.references if runs and run.alike == runs[0].alike],
            self.metric,
            self.predictions,
            request.figure,
            {name: audit.marks for name, audit in self.audits.items()},
            trials=self.trials if columns & {"trials", "search_hours"} else (),
            reads=read_reads(output) if output is not None and "test_reads" in columns else (),
        )

    @property
    def source(self) -> str:
        """Where the results came from, in words."""
        study = f", study {self.request.study}" if self.request.study else ""
        damaged = f"; {len(self.stored.damaged)} damaged ones are left out" if self.stored.damaged else ""
        return f"{self.request.results}{study}: {len(self.finished)} finished of {len(self.results)} results{damaged}"

    def document(
        self, tables: Sequence[Table] = (), figures: Sequence[Figure] = (), notes: Sequence[str] = ()
    ) -> Document:
        """Put a report together, with every run that went into it."""
        request = self.request
        settings = {
            "results": request.results,
            "study": request.study,
            "setting": request.preset,
            "where": dict(request.where),
            "metric": self.metric_name,
            "unit": request.unit,
            "memory": request.figure,
        }
        settings |= common_settings(self.finished) if self.finished else {}
        notes = [*notes, *self.passed_over()]
        is_here = request.folder is not None
        runs = [changed(run.document, folder=str(run.folder) if is_here else "") for run in self.chosen]
        look = Look.of(self.catalog, [row.title for row in self.card.variants])
        aligned = [align(table, request.decimals) for table in tables]
        title = self.card.title
        return Document(self.card.name, title, aligned, figures, notes, runs, self.source, settings, look=look)

    def passed_over(self) -> list[str]:
        """Notes on what is damaged or of another kind, and so is not in the report; none where all is in it."""
        stored = self.stored if "stored" in vars(self) else Results([])
        notes, damaged = [], list(dict.fromkeys([*stored.damaged, *self.damage]))
        if damaged:
            shown = "; ".join(damaged[:_MOST_DAMAGED]) + ("; …" if len(damaged) > _MOST_DAMAGED else "")
            notes.append(f"Passed over as damaged, {len(damaged)}: {shown}.")
        count = len(self._all.runs) - len(stored.runs) if "stored" in vars(self) else 0
        if count:
            which = "scored the test split once" if self._kind.shows_test else _SCORED_OFTEN
            notes.append(f"Left out, {count}: runs that {which}.")
        return notes

    @cached_property
    def stored(self) -> Results:
        """Every result of the source that is for such a report, in whatever setting."""
        return self._all.showing_test(self._kind.shows_test)

    @cached_property
    def _kind(self) -> ReportKind:
        return self.catalog.load("report_kind", self.card.kind, ReportKind)

    @cached_property
    def _all(self) -> Results:
        output = self.request.output
        if output is not None:
            return load_results(output, self.request.study)
        from petlbench.results.tracking.read import read_tracked

        uri = self.request.results.removeprefix("mlflow:")
        if not uri:
            raise InputError(
                "--results mlflow: names no store",
                hint="for example --results mlflow:sqlite:///results/mlflow.db --study bench",
                kind="bad_tracking_uri",
            )
        return Results.of(map(Stored, read_tracked(uri, self.request.study or "petlbench")))
