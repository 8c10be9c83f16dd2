"""A finished study that was asked for before, told without torch: from what was kept of it, and its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from petlbench.core.errors import InputError
from petlbench.core.request import Request
from petlbench.core.user_files import Opened
from petlbench.results.result import Origin
from petlbench.results.table import load_results
from petlbench.run.recall import Recall, digest_of
from petlbench.study.planned_run import PlannedRun
from petlbench.study.status import RunState, StudyStatus
from petlbench.study.summary import StudyResults, Summary, summarize


class StudyRecall(Recall):
    """What is kept of how studies were asked for: which runs they are."""

    def results(self) -> StudyResults | None:
        """What the studies have come to; None where a run is not finished, or anything they depend on has changed."""
        answer = self.answer()
        try:
            if answer is None:
                return None
            summaries = [self._summary(**study) for study in answer["studies"]]
            results = load_results(self.output, str(answer["name"]))
        except (LookupError, TypeError, ValueError, InputError):
            return None
        return StudyResults(**vars(results), name=str(answer["name"]), summaries=summaries)

    def keep_results(self, results: StudyResults, opened: Opened) -> None:
        """Remember studies that are finished, with the files that were opened for them.

        Those whose settings a search gave are not: they hang on its trials.
        """
        summaries = results.summaries
        states = [state for summary in summaries for state in summary.status.states]
        is_whole = all(summary.is_tracked and not summary.unfinished() for summary in summaries)
        if not is_whole or any(state.planned.origin and state.planned.origin.sweep for state in states):
            return
        studies = [
            {"name": each.name, "notes": each.notes, "runs": [_entry(state) for state in each.status.states]}
            for each in summaries
        ]
        configs = [config for state in states if (config := state.planned.config)]
        self.keep({"name": results.name, "studies": studies}, configs, opened)

    def _summary(self, name: str, notes: Sequence[str], runs: Sequence[Mapping[str, Any]]) -> Summary:
        return summarize(name, StudyStatus([self._state(**run) for run in runs]), self.output, notes)

    def _state(
        self, planned: Mapping[str, Any], run_id: str | None, digests: str, error: dict[str, str] | None
    ) -> RunState:
        fields = {**planned, "request": Request(**planned["request"])}
        if planned["origin"] is not None:
            fields["origin"] = Origin(**planned["origin"])
        if run_id is None:
            return RunState(PlannedRun(**fields), "unsupported", error=error)
        result = self.finished_result(run_id, digests)
        if result is None:
            raise LookupError(run_id)
        return RunState(PlannedRun(**{**fields, "config": result.config}), "finished", result)


def _entry(state: RunState) -> dict[str, Any]:
    """A run as plain values, its config left to its result."""
    planned = state.planned
    values = {name: value for name, value in vars(planned).items() if name != "config"}
    origin = None if planned.origin is None else planned.origin.model_dump(mode="json")
    digests = "" if state.result is None else digest_of(state.result.digests)
    plain = {**values, "request": asdict(planned.request), "origin": origin}
    return {"planned": plain, "run_id": state.run_id, "digests": digests, "error": state.error}
