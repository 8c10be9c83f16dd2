"""Studies: many runs that belong together, carried out until each is finished once, whatever happens on the way."""

from petlbench.study.board import Board, RunState, Watch
from petlbench.study.driver import Study, open_board, run_study
from petlbench.study.finding import Difference, compare_results, find_run, remove_run, run_ids
from petlbench.study.matrix import Matrix, Planned, Tuned
from petlbench.study.preview import Preview, preview_matrix
from petlbench.study.record import Recorded, check_study_name, read_study, record_runs, study_file
from petlbench.study.standing import study_results
from petlbench.study.summary import CellSummary, Spread, Summary, summarize

__all__ = [
    "Board",
    "CellSummary",
    "Difference",
    "Matrix",
    "Planned",
    "Preview",
    "Recorded",
    "RunState",
    "Spread",
    "Study",
    "Summary",
    "Tuned",
    "Watch",
    "check_study_name",
    "compare_results",
    "find_run",
    "open_board",
    "preview_matrix",
    "read_study",
    "record_runs",
    "remove_run",
    "run_ids",
    "run_study",
    "study_file",
    "study_results",
    "summarize",
]
