"""One labelled image of a dataset, the words for the three sides of a split, and one pass over all images."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import Literal, NamedTuple, TypeVar, cast, get_args

from petlbench.core.ahead import begun_ahead
from petlbench.core.errors import InputError
from petlbench.core.progress import Progress
from petlbench.data.tasks.base import Label, Labels

T = TypeVar("T")

# Threads take images one at a time up to so many, and then several: what stands for a task takes 2 kB.
_TASKS, _LARGEST_TASK = 10_000, 100
# Tasks that are begun or done before what came of them is taken: what is known of images must not pile up.
_AHEAD = 256

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

SPLIT_ALIASES: Mapping[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Other people's words for the three sides, in lower case."""


WRITTEN_BY_PROGRAMS = frozenset(("nan", "na", "<na>", "n/a", "#n/a", "null"))
"""What programs that write tables put into an empty cell, in lower case."""


class OfficialDraw(NamedTuple):
    """A draw of few images that a dataset's own release has made, so that everybody trains on the same ones.

    Args:
        side: The part that it draws, ``train`` or ``val``.
        shots: Images of each class, or groups.
        number: Which of several draws, counted from 0.
    """

    side: Split
    shots: int
    number: int


@dataclass(frozen=True, slots=True)
class Record:
    """One labelled image.

    Args:
        image_id: Unique in the dataset; never the bare file stem, which repeats between folders.
        path: Relative path in POSIX form, or a locator such as ``digits/0001`` where no file exists.
        label: As the task type stores it; of one class an image, its position in the dataset's ``classes``.
        group: What must stay on one side of a split (patient, lesion), or None where it is not known.
        split: The side that the dataset's own split gives the image, or None where there is none.
        extra: What else the dataset's tables say of the image (site, device, sex, age, …), as (name, value) pairs.
        draws: The dataset's own draws that have the image, sorted.
    """

    image_id: str
    path: str
    label: Label
    group: str | None = None
    split: Split | None = None
    extra: tuple[tuple[str, str], ...] = ()
    draws: tuple[OfficialDraw, ...] = ()


def images_by_class(records: Iterable[Record], classes: Sequence[str], labels: Labels) -> dict[str, int]:
    """Return the number of images of each class, whose labels are stored so."""
    counts = Counter(position for record in records for position in labels.positions(record.label))
    return {name: counts[position] for position, name in enumerate(classes)}


def map_images(
    records: Sequence[Record],
    function: Callable[[Record], T],
    workers: int,
    progress: Progress,
    phase: str = "reading images",
) -> tuple[dict[str, T], dict[str, InputError]]:
    """Return what came of each image, done in threads, and the errors of those that could not be read.

    Both are by image id, in the records' order; the arguments are those of `each_image`.
    """
    results: dict[str, T] = {}
    errors: dict[str, InputError] = {}
    with closing(each_image(records, function, workers, progress, phase)) as outcomes:
        for record, outcome in outcomes:
            if isinstance(outcome, InputError):
                errors[record.image_id] = outcome
            else:
                results[record.image_id] = outcome
    return results, errors


def each_image(
    records: Sequence[Record],
    function: Callable[[Record], T],
    workers: int,
    progress: Progress,
    phase: str = "reading images",
) -> Generator[tuple[Record, T | InputError]]:
    """Yield each image with what came of it, done in threads, or why it could not be read; in the records' order.

    Args:
        records: The images.
        function: What is done; called from several threads.
        workers: Number of threads.
        progress: Told of every image.
        phase: What it is told goes on.
    """
    progress.phase(phase, len(records))
    is_stopped = threading.Event()

    def attempt(record: Record) -> T | InputError | None:
        if is_stopped.is_set():
            return None
        try:
            return function(record)
        except InputError as error:
            return error
        finally:
            progress.advance()

    size = min(max(1, len(records) // _TASKS), _LARGEST_TASK)

    with ThreadPoolExecutor(max(1, workers)) as pool:

        def begin(start: int) -> Callable[[], list[T | InputError | None]]:
            return pool.submit(lambda part: list(map(attempt, part)), records[start : start + size]).result

        try:
            outcomes = chain.from_iterable(begun_ahead(range(0, len(records), size), begin, _AHEAD))
            yield from zip(records, cast("Iterator[T | InputError]", outcomes), strict=True)
        except BaseException:
            # Without this, Ctrl-C would wait until every remaining image is read.
            is_stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def refusal(errors: Mapping[str, InputError], hint: str) -> InputError:
    """Build one error of those of several images: the first, whose hint goes before this one, and their number."""
    first = next(iter(errors.values()))
    others = f" (and {len(errors) - 1} more like it)" if len(errors) > 1 else ""
    return InputError(first.message + others, hint="; ".join(filter(None, (first.hint, hint))), kind=first.kind)
