"""What papers print of a suite: read from the file beside the suite's own, and checked against itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import combinations
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from petlbench.core.errors import InputError
from petlbench.core.text import printable
from petlbench.core.user_files import read_toml
from petlbench.report.scores import ScoreRow, ScoreTable
from petlbench.report.tasks import Groups, averages, tasks_of

FOLDER = "published"
"""Beside the suites' files: NAME.toml has what is printed of the suite NAME."""

_Printed = Annotated[str, Field(pattern=r"^\d{1,3}(\.\d{1,4})?$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Source(_Part):
    title: str = Field(description="what it is, in a few words")
    address: str = Field(description="where it is to be read")


class _Runs(_Part):
    normalize: str = Field(default="", description="what images were fed with, as --normalize names it")
    epoch: str = Field(default="", description="which epoch is reported")
    note: str = Field(default="", description="where that is to be read, and what else there is to know")


class _Row(_Part):
    source: str = Field(min_length=1, description="a name of [sources]")
    method: str = Field(description="petlbench's name of the method, or one of its own")
    title: str = Field(description="what stands in front of it")
    runs: str = Field(default="", description="a name of [runs]: whose runs these are; empty where nobody says")
    millions: float | None = Field(default=None, description="learnable parameters without the head, in millions")
    scores: tuple[_Printed, ...] = Field(default=(), description="in percent, in the order of the tasks")
    averages: Mapping[str, _Printed] = Field(default={}, description="printed averages by key, in percent")


class _Published(_Part):
    backbone: str = Field(description="timm's name of what all of them adapt")
    image_size: int = Field(gt=0, description="in pixels")
    tasks: tuple[str, ...] = Field(description="keys of the suite's tasks, in the order of the scores")
    sources: Mapping[str, _Source]
    runs: Mapping[str, _Runs] = {}
    rows: tuple[_Row, ...]


def read_published(file: Path, groups: Groups) -> ScoreTable | None:
    """What papers print of a suite; None where there is no such file.

    Raises:
        InputError: When the file is wrong.
    """
    if not file.is_file():
        return None
    try:
        published = _Published.model_validate(read_toml(file, what="file of printed scores"))
        rows = [_row(row, published, groups) for row in published.rows]
    except ValidationError as error:
        first = error.errors()[0]
        raise _broken(file, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except ValueError as error:
        raise _broken(file, str(error)) from error
    if len({row.key for row in rows}) < len(rows):
        raise _broken(file, "two rows are of one method and one source")
    notes = [f"{source.title}: {source.address}." for source in published.sources.values()]
    notes += [f"Runs of {name}: {runs.note}." for name, runs in published.runs.items() if runs.note]
    return ScoreTable(rows, notes, published.backbone, published.image_size)


def _row(row: _Row, published: _Published, groups: Groups) -> ScoreRow:
    if strange := set(published.tasks) - {task.key for task in tasks_of(groups)}:
        raise ValueError(f"the suite has no task '{sorted(strange)[0]}'")
    if row.scores and len(row.scores) != len(published.tasks):
        raise ValueError(f"{row.title} of {row.source} has {len(row.scores)} scores for {len(published.tasks)} tasks")
    if strange := set(row.averages) - {each.key for each in averages(groups)}:
        raise ValueError(f"{row.title} of {row.source}: the suite has no average '{sorted(strange)[0]}'")
    for part, name, names in (("sources", row.source, published.sources), ("runs", row.runs, published.runs)):
        if name and name not in names:
            raise ValueError(f"{row.title}: [{part}] has no '{name}'")
    texts = dict(zip(published.tasks, row.scores, strict=bool(row.scores)))
    runs = published.runs[row.runs] if row.runs else _Runs()
    return ScoreRow(
        f"{row.method}@{row.source}",
        row.method,
        row.title,
        {key: (float(text),) for key, text in texts.items()},
        texts,
        None if row.millions is None else 1e6 * row.millions,
        published.sources[row.source].title,
        row.runs,
        runs.normalize,
        runs.epoch,
        row.averages,
    )


@dataclass(frozen=True)
class Difference:
    """A printed average that does not follow from the cells beside it.

    Args:
        row: Its row.
        key: Its key.
        computed: What follows from the cells, in percent.
        rounded: The same as it is printed.
        is_rounding: Whether cells that were rounded before they were printed explain it.
    """

    row: ScoreRow
    key: str
    computed: float
    rounded: str
    is_rounding: bool


def differences(rows: Sequence[ScoreRow], groups: Groups) -> Iterator[Difference]:
    """The printed averages that do not follow from their cells when they are rounded alike."""
    means = {each.key: each for each in averages(groups)}
    for row in rows:
        for key, text in row.printed.items():
            computed = row.mean(means[key])
            if computed is None:
                continue
            # A mean of printed figures is exact in them: floating point must not decide a tie.
            exact, printed = Decimal(repr(round(computed, 9))), Decimal(text)
            again = exact.quantize(printed, ROUND_HALF_EVEN)
            if again != printed:
                bound = _half(text) + max(map(_half, row.texts.values()))
                yield Difference(row, key, computed, str(again), abs(exact - printed) <= bound)


def _half(text: str) -> Decimal:
    """Half of a printed figure's last digit."""
    return Decimal(1).scaleb(Decimal(text).as_tuple().exponent) / 2  # type: ignore[arg-type]  # it is a number


@dataclass(frozen=True)
class Contradiction:
    """Two rows that print the same runs, and differ.

    Args:
        rows: The rows.
        key: Key of the task or average in which they differ.
        texts: What each prints.
    """

    rows: tuple[ScoreRow, ScoreRow]
    key: str
    texts: tuple[str, str]


def contradictions(rows: Sequence[ScoreRow]) -> Iterator[Contradiction]:
    """Every figure that two rows print otherwise, of rows that stand for the same runs of a method.

    Averages of which one may be of rounded scores differ by more than that explains.
    """
    for first, second in combinations([row for row in rows if row.runs], 2):
        if (first.method, first.runs) != (second.method, second.runs):
            continue
        slack = max((_half(text) for row in (first, second) for text in row.texts.values()), default=Decimal(0))
        for own, others, bound in ((first.texts, second.texts, None), (first.printed, second.printed, slack)):
            for key in (key for key in own if key in others):
                left, right = own[key], others[key]
                rounding = Decimal(0) if bound is None else bound + _half(left) + _half(right)
                if abs(Decimal(left) - Decimal(right)) > rounding:
                    yield Contradiction((first, second), key, (left, right))


def _broken(file: Path, fault: str) -> InputError:
    message = f"the file of printed scores {printable(str(file))} is broken: {printable(fault)}"
    return InputError(message, hint="correct the file; reports/README.md describes it", kind="broken_catalog")
