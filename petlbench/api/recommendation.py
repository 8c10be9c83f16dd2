"""Which method to take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from petlbench.core.catalog import Folder
from petlbench.core.user_files import user_path

if TYPE_CHECKING:
    from petlbench.recommend.replay import Replay

__all__ = ["recommend"]


def recommend(
    *,
    replay: tuple[Folder, Folder],
    trials: int = 52,
    prior: Folder = "shipped",
    leave_out: Sequence[str] = (),
    validation_images: int = 200,
) -> Replay:
    """The method to take for every task of recorded trials, and what each decision costs: ``.document()``.

    Args:
        replay: CSV files of recorded trials and of what each method's winner reached on the test images.
        trials: Trials that a task may use.
        prior: ``shipped``, ``none`` or a file of `tools/make_prior.py`; the table's other tasks count besides.
        leave_out: Tasks that no prior may have seen, beside the one that is decided.
        validation_images: Images that a trial's score is made of.

    Raises:
        InputError: When a file is damaged, or the two do not fit together.
    """
    from petlbench.recommend.prior import SHIPPED, Prior, load_prior
    from petlbench.recommend.replay import replay as decide

    recorded, finals = (user_path(file, what="--replay") for file in replay)
    files = {"none": None, "shipped": SHIPPED}
    file = files[str(prior)] if str(prior) in files else user_path(prior, what="--prior")
    belief = Prior.of({}) if file is None else load_prior(file)
    return decide(recorded, finals, belief, budget=trials, images=validation_images, leave_out=leave_out)
