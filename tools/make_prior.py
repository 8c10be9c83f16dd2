"""Makes the prior that comes with petlbench from recorded trials (python tools/make_prior.py TRIALS.csv --source TEXT).

Kept are the mean of every candidate over the tasks and the main axes along which tasks depart from it: derived figures
and no trial. The table is read where it lies.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from petlbench.core.files import write_atomically
from petlbench.recommend.prior import SHIPPED, Prior
from petlbench.recommend.trials import read_trials

AXES = 6


def main() -> None:
    """Write the prior."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trials", type=Path)
    parser.add_argument("--source", required=True, help="where the trials are from, in words")
    parser.add_argument("--output", type=Path, default=SHIPPED)
    options = parser.parse_args()
    prior = Prior.of(read_trials(options.trials)).compressed(AXES)
    with write_atomically(options.output) as temporary:
        temporary.write_text(json.dumps(prior.document(options.source), separators=(",", ":")) + "\n")
    print(f"{options.output}: {len(prior.candidates)} candidates of {len(prior.tasks)} tasks, {len(prior.axes)} axes")


if __name__ == "__main__":
    main()
