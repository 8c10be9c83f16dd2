"""One pass over all images of a dataset, in threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from petlbench.core.errors import InputError
from petlbench.core.progress import Progress
from petlbench.data.record import Record

__all__ = ["map_images", "refusal"]

T = TypeVar("T")


def map_images(
    records: Sequence[Record],
    function: Callable[[Record], T],
    workers: int,
    progress: Progress,
    phase: str = "reading images",
) -> tuple[dict[str, T], dict[str, InputError]]:
    """Return what came of each image, done in threads, and the errors of those that could not be read.

    Both are by image id, in the records' order.

    Args:
        records: The images.
        function: What is done; called from several threads.
        workers: Number of threads.
        progress: Told of every image.
        phase: What it is told goes on.
    """
    progress.phase(phase, len(records))

    def attempt(record: Record) -> T | InputError:
        try:
            return function(record)
        except InputError as error:
            return error
        finally:
            progress.advance()

    with ThreadPoolExecutor(max(1, workers)) as pool:
        try:
            outcomes = list(zip(records, pool.map(attempt, records), strict=True))
        except BaseException:
            # Without this, Ctrl-C would wait until every remaining image is read.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    results = {record.image_id: outcome for record, outcome in outcomes if not isinstance(outcome, InputError)}
    return results, {record.image_id: outcome for record, outcome in outcomes if isinstance(outcome, InputError)}


def refusal(errors: Mapping[str, InputError], hint: str) -> InputError:
    """Build one error of those of several images: the first, and how many more there are."""
    first = next(iter(errors.values()))
    others = f" (and {len(errors) - 1} more like it)" if len(errors) > 1 else ""
    return InputError(first.message + others, hint=hint, kind=first.kind)
