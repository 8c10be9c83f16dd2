"""What runs tell MLflow: parameters, one row of metrics an epoch, and the result's files.

The result on disk is the truth and MLflow a view of it, so tracking never stops a run and hardly slows it: what a store
that is away does not take is kept and sent later, and what it never took can be sent from the disk.
"""

from petlbench.tracking.address import choose_address
from petlbench.tracking.reading import read_tracked
from petlbench.tracking.tracker import MlflowTracker, NullTracker, Tracker, open_tracker

__all__ = ["MlflowTracker", "NullTracker", "Tracker", "choose_address", "open_tracker", "read_tracked"]
