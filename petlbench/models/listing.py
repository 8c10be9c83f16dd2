"""The names in the catalogues, with what is known of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from petlbench.core.catalog import Folders, catalog_of
from petlbench.core.entry import Kind

if TYPE_CHECKING:
    import pandas


class Names(list[str]):
    """Names in a catalogue, in alphabetical order; `to_dataframe` has the row of each."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(row["name"] for row in rows)
        self._rows = rows

    def to_rows(self) -> list[Mapping[str, Any]]:
        """The rows of `to_dataframe` as plain values."""
        return list(self._rows)

    def to_dataframe(self) -> pandas.DataFrame:
        """One row a name: ``name``, ``title``, ``file`` and the fields of its card."""
        import pandas

        return pandas.DataFrame(self._rows)


def list_methods(catalog: Folders = ()) -> Names:
    """The names of all methods, with their cards in ``.to_dataframe()``."""
    return _listed("method", catalog)


def list_datasets(catalog: Folders = ()) -> Names:
    """The names of all datasets, with their cards in ``.to_dataframe()``."""
    return _listed("dataset", catalog)


def list_sweeps(catalog: Folders = ()) -> Names:
    """The names of all searches, with their files in ``.to_dataframe()``."""
    return _listed("sweep", catalog)


def list_reports(catalog: Folders = ()) -> Names:
    """The names of all reports, with their files in ``.to_dataframe()``."""
    return _listed("report", catalog)


def list_metrics(catalog: Folders = ()) -> Names:
    """The names of all metrics, with their titles and directions in ``.to_dataframe()``."""
    return _listed("metric", catalog)


def list_backbones(pattern: str = "", catalog: Folders = ()) -> Names:
    """The names of the backbones that can be adapted which hold a text, or match a pattern with ``*``.

    Those with a card, which ``.to_dataframe()`` has, and timm's other vision transformers.
    """
    from fnmatch import fnmatch

    from petlbench.models.registry import list_vision_transformers

    wide = pattern if "*" in pattern else f"*{pattern}*"
    cards = _listed("backbone", catalog).to_rows()
    rows = {row["name"]: row for row in cards if fnmatch(row["name"], wide)}
    plain = {name: {"name": name, "title": name} for name in list_vision_transformers(pattern)}
    return Names([row for _, row in sorted({**plain, **rows}.items())])


def _listed(kind: Kind, catalog: Folders) -> Names:
    entries = catalog_of(catalog).entries(kind).values()
    return Names(
        [{"name": e.name, "title": e.title, "file": str(e.file)} | dict(e.card) | {"name": e.name} for e in entries]
    )
