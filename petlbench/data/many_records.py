"""Records of very many files: of a million images, forty megabytes where objects would take two hundred."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import overload

from petlbench.data.record import Record, Split
from petlbench.data.tasks.base import Label

# So many are kept as they are: what is read over and over is there sooner than what is made each time.
_FEW = 200_000


def kept_records(records: Iterable[Record]) -> Sequence[Record]:
    """The records, as a tuple or, where they are very many of nothing but a path, a label and a side, more densely."""
    rest = iter(records)
    few = tuple(islice(rest, _FEW + 1))
    if len(few) <= _FEW:
        return few
    dense = DenseRecords()
    dense.add(few)
    del few
    dense.add(rest)
    return dense


class DenseRecords(Sequence[Record]):
    """Records of which path, label and side are all that is known, the path being the id; made when asked for."""

    def __init__(self) -> None:
        self._paths = bytearray()
        self._ends = array("Q")
        # Few labels and sides there are: of each image its number among them.
        self._kinds: dict[tuple[Label, Split | None], int] = {}
        self._numbers = array("I")
        self._known: list[tuple[Label, Split | None]] = []

    def add(self, records: Iterable[Record]) -> None:
        """Put records behind those that are there."""
        for record in records:
            self._paths += record.path.encode()
            self._ends.append(len(self._paths))
            kind = record.label, record.split
            number = self._kinds.setdefault(kind, len(self._known))
            if number == len(self._known):
                self._known.append(kind)
            self._numbers.append(number)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._ends)

    @overload
    def __getitem__(self, place: int) -> Record: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Record, ...]: ...

    def __getitem__(self, place: int | slice) -> Record | tuple[Record, ...]:
        """The record of a place, or those of several."""
        if isinstance(place, slice):
            return tuple(map(self._record, range(*place.indices(len(self)))))
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        return self._record(place % len(self))

    def __iter__(self) -> Iterator[Record]:
        """Every record in turn."""
        return map(self._record, range(len(self)))

    def _record(self, place: int) -> Record:
        path = self._paths[self._ends[place - 1] if place else 0 : self._ends[place]].decode()
        label, split = self._known[self._numbers[place]]
        return Record(path, path, label, split=split)
