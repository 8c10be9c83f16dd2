"""What MLflow is told of runs that have ended: what it lacks of them, and the table of a study."""

from petlbench.study_tracking.results import Tracked, track_results
from petlbench.study_tracking.study import track_study

__all__ = ["Tracked", "track_results", "track_study"]
