"""How a report looks: what methods and datasets are called, their colours and marks, the size of figures and type."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from petlbench.core.catalog import Catalog
from petlbench.core.entry import Entry
from petlbench.core.errors import InputError
from petlbench.report.document import Figure

WIDTH = 122.0
"""Millimetres: one column of Springer's LNCS."""

FONT = 8.0
"""Points."""

NARROW = 90.0
"""Millimetres below which a legend stands below its figure."""

_FIRST = "table1"  # the report whose methods come first
_LAST_YEAR = 9999
_LENGTH = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(mm|cm|in|pt)?\s*")
_MILLIMETRES = {"mm": 1.0, "cm": 10.0, "in": 25.4, "pt": 25.4 / 72, None: 1.0}
_NARROWEST, _WIDEST = 40.0, 400.0


@dataclass(frozen=True)
class Look:
    """How a report looks.

    Args:
        width: Of figures, in millimetres.
        font: Size of the type in figures, in points.
        titles: What methods and datasets are called, by name.
        places: The place of methods and of a report's own rows in the order of colours and marks, by name.
        files: What the names of figures' files begin with that a text takes in; empty for the report's name.
    """

    width: float = WIDTH
    font: float = FONT
    titles: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, int] = field(default_factory=dict)
    files: str = ""

    @classmethod
    def of(cls, catalog: Catalog | None = None, rows: Iterable[str] = ()) -> Look:
        """The look of a catalogue's methods and datasets, and of rows that are no methods, in their order."""
        catalog = catalog or Catalog()
        entries = (catalog.entries("dataset"), catalog.entries("method"))
        titles = {name: entry.title for each in entries for name, entry in each.items()}
        return cls(titles=titles, places={**_places(catalog), **{row: place for place, row in enumerate(rows)}})

    def title(self, name: str) -> str:
        """What a method or a dataset is called; its name where nothing else is known."""
        return self.titles.get(name, name)

    def place(self, name: str) -> int:
        """The place of a method in the order of colours and marks; behind all others where it has none."""
        return self.places.get(name, len(self.places))

    def dress(self, figure: Figure) -> Figure:
        """The figure with the place of every series that has data: its own, or the next that no other has."""
        own = {series.key: self.places[series.key] for series in figure.series if series.key in self.places}
        free = (place for place in range(len(own) + len(figure.series)) if place not in own.values())
        series = [
            each if each.role == "reference" else replace(each, place=own[each.key] if each.key in own else next(free))
            for each in figure.series
        ]
        return replace(figure, series=series)


def _places(catalog: Catalog) -> dict[str, int]:
    """The order of methods, which no file's name and no number of results changes.

    First come those of the papers' table; then the others that travel with petlbench by year and name; then a user's.
    """
    methods = catalog.entries("method")
    first = list(catalog.entries("report")[_FIRST].card["study"]["methods"])

    def key(entry: Entry) -> tuple[bool, int, int, str]:
        place = first.index(entry.name) if entry.name in first else len(first)
        return not entry.shipped, place, int(entry.card.get("year") or _LAST_YEAR), entry.name

    return {entry.name: place for place, entry in enumerate(sorted(methods.values(), key=key))}


def parse_width(text: str) -> float:
    """A width in millimetres, of a text such as ``122``, ``60mm``, ``12.2 cm`` or ``4.8in``.

    Raises:
        InputError: When it is none, or no figure has room in it.
    """
    match = _LENGTH.fullmatch(text)
    width = float(match[1]) * _MILLIMETRES[match[2]] if match else 0.0
    if not _NARROWEST <= width <= _WIDEST:
        raise InputError(
            f"--width {text}: a figure is {_NARROWEST:.0f} to {_WIDEST:.0f} mm wide",
            hint="for example --width 122mm, or 60mm for half of it",
            kind="bad_setting",
        )
    return width
