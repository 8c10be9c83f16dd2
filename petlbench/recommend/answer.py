"""What a race has decided, in figures and in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from petlbench.core.units import number, percent
from petlbench.metrics.metric import Metric
from petlbench.recommend.contest import Outcome
from petlbench.recommend.costs import again, document
from petlbench.recommend.field import Entrant
from petlbench.recommend.figures import differences_figure, race_figure
from petlbench.recommend.tuned import Difference
from petlbench.report.cells import MIB
from petlbench.report.document import Cell, Column, table_of
from petlbench.report.formats import Document
from petlbench.results.result import Result
from petlbench.run.command import command_of
from petlbench.statistics.ranks import fronts
from petlbench.sweep.search import TrialFacts

_Z = 1.96


@dataclass(frozen=True)
class Answer:
    """A recommendation.

    Args:
        outcome: The race.
        metric: The score.
        memory: Predicted peak of a training step in bytes by method; None where none was predicted.
        refused: Methods that were left out before the race, with the reason.
        notes: What speaks against any table of this dataset.
        hours: The hours that were given.
    """

    outcome: Outcome
    metric: Metric
    memory: Mapping[str, int | None] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    hours: float = 0.0

    @property
    def best(self) -> Entrant:
        """The recommended entrant."""
        return self.outcome.entrant(self.outcome.winner)

    @property
    def result(self) -> Result | None:
        """The recommended entrant's tested run; None where it did not finish."""
        run_id = self.best.config.run_id
        return next((result for result in self.outcome.results if result.run_id == run_id), None)

    @cached_property
    def rivals(self) -> dict[str, Difference]:
        """Every other method against the recommended one, each with the best of its settings."""
        outcome = self.outcome
        return outcome.standing.differences(outcome.trials, self.best.candidate.arm, outcome.finalists)

    @cached_property
    def inseparable(self) -> dict[str, Difference]:
        """The methods that cannot be told from the recommended one."""
        return {method: pair for method, pair in self.rivals.items() if pair.high >= 0}

    @cached_property
    def alternatives(self) -> list[dict[str, Any]]:
        """Methods not separably worse that are cheaper in memory or in learnable parameters, the cheapest first."""
        mine = self.rows[self.best.candidate.arm]
        rows = [self.rows[method] for method in self.inseparable]
        cheaper = [row for row in rows if _cheaper(row, mine)]
        front = fronts({row["arm"]: (-row["score"], row["memory"] or 0, row["learnable"] or 0) for row in cheaper})
        chosen = [row for row in cheaper if front[row["arm"]] == 1]
        return sorted(chosen, key=lambda row: (row["memory"] or 0, row["learnable"] or 0))

    @property
    def untried(self) -> list[str]:
        """The methods that could have taken part and of which no trial finished."""
        arms = dict.fromkeys(entrant.candidate.arm for entrant in self.outcome.field.entrants)
        tried = self.outcome.standing.best_trials(self.outcome.trials)
        return [arm for arm in arms if arm not in tried and arm not in self.outcome.too_dear]

    @property
    def more_images(self) -> int | None:
        """Validation images beyond those there are that would tell the two best methods apart, if they differ as seen.

        What images add to the variance falls with their number; seeds and settings add as much as before. None where
        the two are told apart, or images alone do not do.
        """
        arm = max(self.inseparable, key=lambda other: self.inseparable[other].effect, default=None)
        if arm is None:
            return None
        pair, standing = self.inseparable[arm], self.outcome.standing
        best = standing.best_trials(self.outcome.trials)
        error = standing.image_error(best[arm], best[self.best.candidate.arm]) or 0.0
        room = (pair.effect / _Z) ** 2 - max(0.0, pair.error**2 - error**2)
        return max(0, round(standing.images * error**2 / room) - standing.images) if room > 0 else None

    @cached_property
    def rows(self) -> dict[str, dict[str, Any]]:
        """What the race knows of every method: its best trial, parameters, predicted memory, seconds."""
        best = self.outcome.standing.best_trials(self.outcome.trials)
        trials = [trial for trial in self.outcome.trials if "candidate" in trial.params]
        counts = Counter(self.outcome.standing.entrant(trial).candidate.arm for trial in trials)
        return {arm: {**self._row(arm, trial), "trials": counts[arm]} for arm, trial in best.items()}

    def _row(self, arm: str, trial: TrialFacts) -> dict[str, Any]:
        entrant = self.outcome.standing.entrant(trial)
        stored = self.outcome.standing.result(trial)
        counts = stored.parameters if stored is not None else None
        return {
            "arm": arm,
            "method": entrant.candidate.method,
            "backbone": entrant.config.backbone,
            "score": trial.value,
            "settings": _settings(entrant),
            "memory": self.memory.get(arm),
            "learnable": counts.learnable if counts is not None else None,
            "ratio": counts.ratio if counts is not None else None,
            "seconds": again(self.outcome.standing, trial),
            "seconds_predicted": cost.seconds if (cost := self.outcome.costs.get(arm)) is not None else None,
        }

    def command(self) -> str:
        """The command that trains the recommended method in full."""
        return command_of(self.best.config, self.outcome.field.context)

    def document(self) -> dict[str, Any]:
        """The answer as plain values."""
        outcome, result, winner = self.outcome, self.result, self.outcome.winner
        test = None if result is None else result.metrics.get("test", {}).get(self.metric.name)
        interval = None if result is None else result.intervals.get("test", {}).get(self.metric.name)
        return {
            "recommended": {
                **self.rows[self.best.candidate.arm],
                "val_mean": winner.mean,
                "seeds": len(winner.values),
                "test": test,
                "interval": interval,
                "latency": None if result is None or result.inference is None else result.inference.model_dump(),
                "run_id": self.best.config.run_id,
                "config": self.best.config.model_dump(mode="json"),
                "command": self.command(),
            },
            "metric": self.metric.name,
            "separable": bool(self.rivals) and not self.inseparable and not self.untried,
            "untried": self.untried,
            "differences": _plain(self.rivals),
            "not_separable": _plain(self.inseparable),
            "more_images": self.more_images,
            "alternatives": self.alternatives,
            "excluded": self.excluded(),
            "methods": list(self.rows.values()),
            "finalists": [finalist.document() for finalist in outcome.finalists],
            "trials": len(outcome.trials),
            "hours": {"given": self.hours, "spent": outcome.spent / 3600, "costs": document(outcome.costs)},
            "notes": list(self.notes),
        }

    def excluded(self) -> dict[str, str]:
        """Every method that is out, with the reason."""
        dear = {m: f"a run is predicted to take {s / 3600:.2g} hours" for m, s in self.outcome.too_dear.items()}
        best = self.best.candidate.arm
        worse = {
            arm: f"worse than {best} by {percent(-pair.effect, 1)} points"
            for arm, pair in self.rivals.items()
            if arm not in self.inseparable
        }
        return {**self.refused, **dear, **worse}

    def sentences(self) -> list[str]:
        """The answer in words, the most important first."""
        best, result = self.best.candidate.arm, self.result
        words = [f"Take {best}, with {_words(_settings(self.best))}."]
        if result is not None and (score := result.metrics["test"].get(self.metric.name)) is not None:
            interval = result.intervals.get("test", {}).get(self.metric.name) or {}
            bounds = f" ({percent(interval['low'], 1)} to {percent(interval['high'], 1)})" if interval else ""
            words.append(f"{self.metric.title} on the test images, read once: {percent(score, 1)} %{bounds}.")
        if alternatives := self.alternatives:
            cheap = alternatives[0]
            words.append(f"{cheap['arm']} is cheaper and not separably worse: {_price(cheap)}.")
        if self.inseparable:
            names = ", ".join(sorted(self.inseparable))
            more = self.more_images
            need = "More validation images alone would not tell the two best apart; more hours, spent on settings, may."
            if more is not None:
                need = f"About {more:,} more validation images would tell the two best apart."
            words.append(f"Not separable from {best}: {names}. {need}")
        elif self.rivals:
            words.append(f"{best} is separable from every other method.")
        if self.untried:
            words.append(f"There was no time for {', '.join(self.untried)}.")
        return words

    def report(self) -> Document:
        """The answer as a document of every format: sentences, a table of methods, the race as a figure."""
        columns = [
            Column("method", "method", numeric=False),
            Column("score", f"validation {self.metric.title}", "%", "higher"),
            Column("difference", "against the recommended", "points"),
            Column("learnable", "learnable parameters"),
            Column("memory", "predicted memory", "MiB", "lower"),
            Column("seconds", "a run", "s", "lower"),
            Column("trials", "trials"),
        ]
        ordered = sorted(self.rows.values(), key=lambda row: -(row["score"] or 0.0))
        rows = [self._cells(row, self.rivals.get(row["arm"])) for row in ordered]
        caption = (
            "Score and seconds are those of a method's best trial; seconds leave out what is read once. "
            "Differences are between methods, each with the best of its settings: over images (paired), seeds, and "
            "settings not tried. Memory is predicted."
        )
        table = table_of("methods", "Methods in the race", columns, rows, caption)
        out = [f"left out: {method}: {reason}" for method, reason in self.excluded().items()]
        verdict = " ".join(self.sentences())
        notes = [f"In full: {self.command()}", *self.notes, *out]
        title = f"Which method for {self.outcome.field.label}"
        differences = differences_figure(self.rivals, self.metric, self.best.candidate.arm)
        figures = [race_figure(self.outcome, self.metric), *([differences] if differences is not None else [])]
        spent = f"{self.outcome.spent / 3600:.3g} of {self.hours:g} hours, {len(self.outcome.trials)} trials"
        source = "a race on this machine"
        settings = {"spent": spent}
        return Document("recommend", title, [table], figures, notes, source=source, settings=settings, verdict=verdict)

    def _cells(self, row: Mapping[str, Any], rival: Difference | None) -> list[Cell | str]:
        difference = Cell(text="")
        if rival is not None:
            effect, low, high = (100 * each for each in (rival.effect, rival.low, rival.high))
            difference = Cell(effect, f"{effect:+.1f} ({low:+.1f} to {high:+.1f})", low, high)
        memory = None if row["memory"] is None else row["memory"] / MIB
        return [
            row["arm"],
            Cell(100 * row["score"], percent(row["score"])),
            difference,
            Cell(row["learnable"], f"{row['learnable']:,}" if row["learnable"] is not None else ""),
            Cell(memory, number(memory, 0) if memory is not None else "", reason="" if memory else "not predicted"),
            Cell(row["seconds"], number(row["seconds"], 1)),
            Cell(row["trials"], str(row["trials"])),
        ]


def _plain(differences: Mapping[str, Difference]) -> dict[str, dict[str, float | None]]:
    return {arm: {"effect": pair.effect, "low": pair.low, "high": pair.high} for arm, pair in differences.items()}


def _settings(entrant: Entrant) -> dict[str, Any]:
    training = entrant.config.training
    own = {name: value for name, value in entrant.config.method_settings.items() if value is not None}
    return {"lr": training.lr, "weight_decay": training.weight_decay, **own}


def _words(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in settings.items()
    )


def _cheaper(row: Mapping[str, Any], than: Mapping[str, Any]) -> bool:
    return any((row[name] or 0) < (than[name] or 0) for name in ("memory", "learnable"))


def _price(row: Mapping[str, Any]) -> str:
    parameters = f"{row['learnable']:,} learnable parameters" if row["learnable"] is not None else ""
    memory = f"{row['memory'] / MIB:,.0f} MiB predicted" if row["memory"] is not None else ""
    return ", ".join(part for part in (memory, parameters) if part)
