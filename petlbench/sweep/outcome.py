"""A search as one JSON document."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import optuna

from petlbench.sweep.search import Search, TrialFacts

if TYPE_CHECKING:
    import pandas

__all__ = ["SearchOutcome", "SweepResult", "Trials", "importances"]


@dataclass(frozen=True)
class SearchOutcome:
    """What came of one search.

    Args:
        search: The search; None for a combination that cannot be had.
        method: Name of the method.
        dataset: The dataset's short name.
        trials: Its trials.
        retries: How many trials were lost with their driver and begun again.
        importances: Share of each setting in how the objective varies; empty where ``note`` says why.
        note: Why there are no importances.
        winner: The winner as its file has it; None where there is none.
        runs: The winner's runs, each tested once.
        refusal: Why the combination cannot be had.
    """

    search: Search | None
    method: str
    dataset: str
    trials: Sequence[TrialFacts] = ()
    retries: int = 0
    importances: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    winner: Mapping[str, Any] | None = None
    runs: Sequence[Mapping[str, Any]] = ()
    refusal: str | None = None

    @property
    def best(self) -> TrialFacts | None:
        """The trial with the best objective."""
        finished = [trial for trial in self.trials if trial.value is not None]
        if self.search is None or not finished:
            return None
        choose = min if self.search.card.minimises else max
        return choose(finished, key=lambda trial: trial.value or 0.0)

    def preview(self) -> dict[str, Any]:
        """What would be searched, as plain values."""
        search = self.search
        return {
            "method": self.method,
            "dataset": self.dataset,
            "search": search and search.key,
            "trials": len(search.points) if search is not None else 0,
            "space": search and search.space.document(),
            "first": (search and dict(search.points[0])) or None,
            "error": self.refusal,
        }

    def document(self) -> dict[str, Any]:
        """The outcome as plain values."""
        if self.search is None:
            return {"method": self.method, "dataset": self.dataset, "error": self.refusal, "trials": [], "best": None}
        return {
            "sweep": self.search.name,
            "search": self.search.key,
            "method": self.method,
            "dataset": self.dataset,
            "track": self.search.card.track,
            "objective": self.search.card.objective,
            "trials": [asdict(trial) for trial in self.trials],
            "retries": self.retries,
            "best": None if self.best is None else asdict(self.best),
            "importances": dict(self.importances),
            "importances_note": self.note,
            "winner": self.winner,
            "runs": list(self.runs),
        }


class Trials(list[TrialFacts]):
    """The trials of a search."""

    def to_dataframe(self) -> pandas.DataFrame:
        """One row a trial: ``number``, ``status``, ``value`` (the objective), ``run_id``, ``seconds``, its settings."""
        import pandas

        rows = [{**asdict(trial), **trial.params} for trial in self]
        return pandas.DataFrame([{key: value for key, value in row.items() if key != "params"} for row in rows])


@dataclass(frozen=True)
class SweepResult:
    """What came of a sweep.

    Args:
        outcomes: One a method and dataset.
    """

    outcomes: Sequence[SearchOutcome]

    @property
    def best(self) -> dict[str, Any] | None:
        """The winner's settings, ``training`` and ``method``; None where no trial finished.

        Of several searches, theirs by ``METHOD on DATASET``.
        """
        best = {
            f"{each.method} on {each.dataset}": dict(each.winner["best"]) if each.winner is not None else None
            for each in self.outcomes
        }
        return best if len(best) > 1 else next(iter(best.values()))

    @property
    def trials(self) -> Trials:
        """The trials of all searches."""
        return Trials(trial for outcome in self.outcomes for trial in outcome.trials)


def importances(study: optuna.Study) -> tuple[dict[str, float], str]:
    """Return how much each setting matters to the objective, by functional ANOVA.

    These are shares by dotted name that add up to 1, the largest first; and why there are none, where there are none.
    """
    finished = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(finished) < 4:
        return {}, f"{len(finished)} finished trials say nothing of importance; it takes 4"
    if len({trial.value for trial in finished}) == 1:
        return {}, "the objective is the same in all finished trials"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
            shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (ValueError, RuntimeError) as error:
        return {}, f"importance cannot be computed: {error}"
    return {name: float(share) for name, share in shares.items()}, ""
