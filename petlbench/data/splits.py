"""Who is on which side: official, random, k-fold and repeated splits, stratified, with groups kept together."""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from petlbench.core.errors import InputError
from petlbench.data.record import SPLITS, Record, Split
from petlbench.data.tasks.base import class_strata

SchemeKind = Literal["official", "random", "kfold", "repeat"]

_FORMS = "official, random, kfold:K/I (fold I of K, from 0) or repeat:N/I (random split I of N, from 0)"
_TEST_FOLDS = 5
_VAL_FOLDS = 8
"""One fifth is the test split and one eighth of the rest the validation split: 70/10/20."""
_TEST_STREAM, _VAL_STREAM = 0, 1


@dataclass(frozen=True)
class SplitScheme:
    """A way to split a dataset.

    Args:
        kind: ``official``, ``random``, ``kfold`` or ``repeat``.
        parts: Number of folds or of repetitions; 0 for the other two kinds.
        index: Which fold or repetition, from 0.

    Raises:
        InputError: When parts or index are out of bounds.
    """

    kind: SchemeKind
    parts: int = 0
    index: int = 0

    def __post_init__(self) -> None:
        """Check the bounds."""
        least = {"official": 0, "random": 0, "kfold": 2, "repeat": 1}[self.kind]
        hint = f"give {_FORMS}"
        if least == 0 and (self.parts or self.index):
            raise InputError(f"the split '{self.kind}' has no parts", hint=hint, kind="bad_split")
        if self.parts < least:
            text = f"the split '{self.kind}:{self.parts}/{self.index}' has too few parts: at least {least} needed"
            raise InputError(text, hint=hint, kind="bad_split")
        if least and not 0 <= self.index < self.parts:
            text = f"the split '{self}' does not exist: the parts are numbered 0 to {self.parts - 1}"
            hint = f"{self.kind}:{self.parts}/{self.parts - 1} is the last one"
            raise InputError(text, hint=hint, kind="bad_split")

    @classmethod
    def parse(cls, text: str) -> SplitScheme:
        """Return the scheme that is written so; ``str()`` of it gives the text back.

        Args:
            text: ``official``, ``random``, ``kfold:K/I`` or ``repeat:N/I``.

        Raises:
            InputError: When the text has another form or a number is out of bounds.
        """
        match = re.fullmatch(r"(official|random)|(kfold|repeat):([0-9]{1,6})/([0-9]{1,6})", text)
        if match is None:
            raise InputError(f"unknown split '{text}'", hint=f"give {_FORMS}", kind="bad_split")
        return cls(cast("SchemeKind", match[1] or match[2]), int(match[3] or 0), int(match[4] or 0))

    def __str__(self) -> str:
        """Write the scheme as on the command line."""
        return f"{self.kind}:{self.parts}/{self.index}" if self.parts else self.kind


def assign_splits(
    records: Sequence[Record],
    scheme: SplitScheme,
    seed: int,
    *,
    classes: Sequence[str] = (),
    strata: Callable[[Sequence[Any]], NDArray[Any]] = class_strata,
) -> list[Split]:
    """Give every record its side.

    Random splits are about 70/10/20, stratified by label. Where any record has a group, no group is on two
    sides, and proportions and classes are kept as far as the groups allow; a record without a group is a group
    of its own. The result depends on records, scheme and seed, not on the order of the records.

    Args:
        records: The records; their image ids are unique.
        scheme: How to split. The folds of one seed share one partition.
        seed: Seed of the split, 0 or greater.
        classes: The class names that errors use, in label order; without them errors give the label.
        strata: From labels to what is balanced, (N, K): the task type's `strata`.

    Returns:
        One of ``train``, ``val`` and ``test`` for every record, in the given order; no ``test`` where an official
        split has parts to train and to validate on only.

    Raises:
        InputError: When there is no official split, a class is too small, there are too few groups, or the
            official split has a group on two sides. Of an official split with all three parts a class may have no
            image to train on, which `absent_in_training` says.
    """
    if seed < 0:
        raise InputError(f"the split seed {seed} is negative", hint="give 0 or a greater number", kind="bad_seed")
    order = None if _is_sorted(records) else sorted(range(len(records)), key=lambda row: records[row].image_id)
    table = _Table(records if order is None else [records[row] for row in order], classes, strata)
    if scheme.kind == "official":
        sides = _official(table, seed)
    else:
        _require_sizes(table, scheme)
        sides = _drawn(table, scheme, seed)
    _require_all_sides(table, sides, SPLITS if scheme.kind != "official" else ("train", "val"))
    if scheme.kind != "official" or {record.split for record in records} != set(SPLITS):
        # Three parts of a release are taken as they are: benchmarks draw small ones without regard to classes.
        _require_trained(table, sides)
    if order is None:
        return sides
    placed = [*sides]
    for row, side in zip(order, sides, strict=True):
        placed[row] = side
    return placed


def _is_sorted(records: Sequence[Record]) -> bool:
    return all(first.image_id < second.image_id for first, second in pairwise(records))


def group_numbers(records: Sequence[Record]) -> NDArray[np.int64]:
    """Return the number of each record's group, (N,), from 0; a record without a group is one of its own."""
    if all(record.group is None for record in records) and _is_sorted(records):  # many images, and no name kept of one
        return np.arange(len(records))
    names = [f"image {r.image_id}" if r.group is None else f"group {r.group}" for r in records]
    return np.unique(names, return_inverse=True)[1]


def shared_groups(records: Sequence[Record], splits: Sequence[Split | None]) -> list[str]:
    """Return the names of the groups that are on more than one side, sorted; `splits` has each record's side."""
    sides: defaultdict[str, set[Split | None]] = defaultdict(set)
    for record, split in zip(records, splits, strict=True):
        if record.group is not None:
            sides[record.group].add(split)
    return sorted(group for group, own in sides.items() if len(own) > 1)


class _Table:
    """Records in a fixed order, with their strata, (N, K), and groups, (N,), as arrays."""

    def __init__(
        self, records: Sequence[Record], classes: Sequence[str], strata: Callable[[Sequence[Any]], NDArray[Any]]
    ) -> None:
        self.records = records
        self.classes = classes
        self.strata = np.asarray(strata([record.label for record in records]), dtype=bool)
        self.grouped = any(record.group is not None for record in records)
        # Images in one stratum each are dealt out stratum by stratum; all others group by group.
        self.several = bool((self.strata.sum(axis=1) != 1).any())
        self.whole = self.grouped or self.several
        self.groups = group_numbers(records)

    def counts(self) -> list[tuple[int, int]]:
        """Return (stratum, number of images) of every stratum that has any."""
        return [(stratum, count) for stratum, count in enumerate(self.strata.sum(axis=0).tolist()) if count]

    def most_folds(self, rows: np.ndarray) -> int:
        """Return into how many folds some rows can be divided: one group each, and one image of some class each."""
        if not len(rows):
            return 0
        return min(len(np.unique(self.groups[rows])), int(self.strata[rows].sum(axis=0).max()))

    def too_small(self, label: int, count: int, why: str) -> InputError:
        """Build the error for a class that cannot be split."""
        name = f"'{self.classes[label]}'" if label < len(self.classes) else str(label)
        return InputError(
            f"the class {name} has {count} image{'' if count == 1 else 's'}: {why}",
            hint="add images to the class or leave it out",
            kind="class_too_small",
        )


def _require_sizes(table: _Table, scheme: SplitScheme) -> None:
    """Refuse a class that is too small to be on all three sides; groups may force one to be on fewer."""
    folds = scheme.parts if scheme.kind == "kfold" else 0
    for label, count in table.counts():
        # Fold sizes differ by one: each needs one image, and what it leaves one to validate and one to train on.
        least = 2 if table.grouped else max(3, folds, 4 if folds == 2 else 0)
        if count < least:
            raise table.too_small(label, count, f"the split '{scheme}' needs at least {least}")
    needed = max(3, folds)
    groups = len(np.unique(table.groups))
    if groups < needed or table.most_folds(np.arange(len(table.records))) < folds:
        raise InputError(
            f"the split '{scheme}' needs at least {needed} groups and a class of {needed} images; there are {groups} "
            f"groups",
            hint="choose fewer folds, or add images of other groups",
            kind="too_few_groups",
        )


def _drawn(table: _Table, scheme: SplitScheme, seed: int) -> list[Split]:
    """Draw the test split from all and the validation split from what is left."""
    rows = np.arange(len(table.records))
    part = (scheme.index + 1,) if scheme.parts else ()
    if scheme.kind == "kfold":
        # One state for all folds: they are parts of one partition.
        test = _folds(table, rows, scheme.parts, _state(seed, _TEST_STREAM))[scheme.index]
    else:
        test = _cut(table, rows, _TEST_FOLDS, _state(seed, _TEST_STREAM, *part))
    rest = np.setdiff1d(rows, test)
    val = _cut(table, rest, _VAL_FOLDS, _state(seed, _VAL_STREAM, *part))
    return _sides(len(rows), val, test)


def _official(table: _Table, seed: int) -> list[Split]:
    official = [record.split for record in table.records]
    _require_official(table.records, official)
    leaks = shared_groups(table.records, official)
    if leaks:
        raise InputError(
            f"the official split has {len(leaks)} groups on two sides, the first: {leaks[0]}",
            hint="correct the split or the groups, or choose --split random",
            kind="group_leak",
        )
    train, val, test = (np.flatnonzero([split == side for split in official]) for side in SPLITS)
    if not len(val):
        val = _cut(table, train, _VAL_FOLDS, _state(seed, _VAL_STREAM))
    return _sides(len(official), val, test)


def _require_official(records: Sequence[Record], official: Sequence[Split | None]) -> None:
    others = "choose --split random, kfold:5/0 or repeat:5/0"
    # Parts to train and to validate on are used as they are: nothing is cut from them to be tested on.
    absent = [side for side in ("train", "test") if side not in official and not (side == "test" and "val" in official)]
    if absent:
        text = f"the official split has no {absent[0]} part" if any(official) else "the dataset has no official split"
        raise InputError(text, hint=others, kind="no_official_split")
    if None in official:
        first = records[official.index(None)].image_id
        raise InputError(
            f"{official.count(None)} images have no side in the official split, the first: {first}",
            hint=f"give each train, val or test, or {others}",
            kind="no_official_split",
        )


def _cut(table: _Table, rows: np.ndarray, folds: int, state: int) -> np.ndarray:
    """Choose about one of `folds` parts of the rows."""
    if not table.whole:
        return _share(table, rows, folds, state)
    parts = min(folds, table.most_folds(rows))
    if parts < 2:
        raise InputError(
            "the images cannot be divided: all that are left are of one group, or one of each class",
            hint="add images of other groups",
            kind="too_few_groups",
        )
    goal = len(rows) / folds
    candidates = [part for part in _folds(table, rows, parts, state) if len(part)]

    def fault(part: np.ndarray) -> tuple[int, int, bool, float]:
        uneven = _uneven(table, rows, part, folds) if table.several else 0.0
        return (*_lacking(table, rows, part), abs(len(part) - goal) > 0.5 * goal, uneven)

    return min(candidates, key=fault)


def _lacking(table: _Table, rows: np.ndarray, part: np.ndarray) -> tuple[int, int]:
    """Count the classes that a choice would take from the rest, and those that it would not have itself."""
    every, inside, rest = (table.strata[some].any(axis=0) for some in (rows, part, np.setdiff1d(rows, part)))
    return int((every & ~rest).sum()), int((every & ~inside).sum())


def _uneven(table: _Table, rows: np.ndarray, part: np.ndarray, folds: int) -> float:
    """How far a part is from having one in `folds` images of each stratum, as a share of that, where it is furthest."""
    goals = table.strata[rows].sum(axis=0) / folds
    return float((np.abs(table.strata[part].sum(axis=0) - goals) / np.maximum(goals, 1)).max().round(9))


def _share(table: _Table, rows: np.ndarray, folds: int, state: int) -> np.ndarray:
    """Choose one in `folds` images of every class, at least one, and never the last one.

    scikit-learn's shuffled splits leave a class of three or four images out of a side; this does not.
    """
    rng = np.random.Generator(np.random.PCG64(state))
    part: list[int] = []
    for stratum in table.strata[rows].T:
        if not stratum.any():
            continue
        members = rng.permutation(rows[stratum])
        count = min(len(members) - 1, max(1, round(len(members) / folds)))
        part += members[:count].tolist()
    return np.sort(np.array(part, dtype=np.int64))


def _folds(table: _Table, rows: np.ndarray, folds: int, state: int) -> list[np.ndarray]:
    """Divide the rows into folds of similar size and class mixture."""
    if table.whole:
        return _group_folds(table.strata[rows], table.groups[rows], rows, folds, state)
    from sklearn.model_selection import StratifiedKFold

    splitter = StratifiedKFold(folds, shuffle=True, random_state=state)
    with warnings.catch_warnings():
        # It warns of classes smaller than the folds; _require_sizes has refused those that matter.
        warnings.simplefilter("ignore", UserWarning)
        return [rows[part] for _, part in splitter.split(rows, table.strata[rows].argmax(axis=1))]


def _group_folds(strata: np.ndarray, groups: np.ndarray, rows: np.ndarray, folds: int, state: int) -> list[np.ndarray]:
    """Deal the groups out, the most uneven first, each to the fold that then makes the folds most alike.

    This is the rule of scikit-learn's StratifiedGroupKFold, which takes seconds for some thousand groups: it
    computes every spread anew, where one sum of squares a class is enough.
    """
    group = np.unique(groups, return_inverse=True)[1]
    counts = np.zeros((group.max() + 1, np.flatnonzero(strata.any(axis=0)).max(initial=0) + 1))
    np.add.at(counts, group, strata[:, : counts.shape[1]])
    order = np.random.Generator(np.random.PCG64(state)).permutation(len(counts))
    order = order[np.argsort(-counts[order].std(axis=1).round(9), kind="stable")]
    totals = np.maximum(counts.sum(axis=0), 1)
    sums, fold_of = np.zeros((folds, counts.shape[1])), np.zeros(len(counts), dtype=np.int64)
    for row in order:
        added = counts[row]
        squares = (sums**2).sum(axis=0) + 2 * sums * added + added**2
        spread = squares / folds - ((sums.sum(axis=0) + added) / folds) ** 2
        unlike = (np.sqrt(np.maximum(spread, 0)) / totals).mean(axis=1).round(9)
        fold_of[row] = np.lexsort((sums.sum(axis=1), unlike))[0]
        sums[fold_of[row]] += added
    return [rows[fold_of[group] == fold] for fold in range(folds)]


def _state(seed: int, *part: int) -> int:
    """Derive an independent 32-bit state from the seed for one purpose."""
    return int(np.random.SeedSequence([seed, *part]).generate_state(1)[0])


def _sides(count: int, val: np.ndarray, test: np.ndarray) -> list[Split]:
    sides = np.full(count, "train", dtype=object)
    sides[val], sides[test] = "val", "test"
    return list(sides)


def _require_all_sides(table: _Table, sides: Sequence[Split], needed: Sequence[Split]) -> None:
    """Refuse a split that lacks a side."""
    empty = [side for side in needed if side not in sides]
    if empty:
        because = ", since groups stay together" if table.grouped else f": there are {len(sides)} images"
        raise InputError(
            f"no image is left for the {empty[0]} split{because}",
            hint=f"add images{' of other groups' if table.grouped else ''}, or choose fewer folds",
            kind="too_few_groups",
        )


def _require_trained(table: _Table, sides: Sequence[Split]) -> None:
    """Refuse a split in which a class is evaluated but never trained on."""
    trained = np.flatnonzero(table.strata[[side == "train" for side in sides]].any(axis=0))
    because = ", since their groups stay together" if table.grouped else ""
    for label, count in table.counts():
        if label not in trained:
            raise table.too_small(label, count, f"none of them is left to train on{because}")
