"""A report as others get it: without the folders of the machine that made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, overload

from petlbench.core.text import without_folders

_KEPT = frozenset({"picture", "look", "details"})  # base64, which has slashes; and what is no text


def without_places(value: Any) -> Any:
    """The same plain values and dataclasses, in whose texts of absolute paths the last part alone is left."""
    if isinstance(value, str):
        return without_folders(value)
    if isinstance(value, Mapping):
        return {without_places(key): without_places(item) for key, item in value.items() if key != "folder"}
    if isinstance(value, list | tuple):
        return type(value)(map(without_places, value))
    if is_dataclass(value) and not isinstance(value, type):
        names = [each.name for each in fields(value) if each.name not in _KEPT]
        return replace(value, **{name: without_places(getattr(value, name)) for name in names})
    return value


class WithoutPlaces(Sequence[Any]):
    """Values as `without_places` gives them, each when it is asked for: most formats read no run's document.

    Args:
        values: The values.
    """

    def __init__(self, values: Sequence[Any]) -> None:
        self._values = values

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """The value at a place, or those of a slice."""
        return without_places(self._values[index])

    def __len__(self) -> int:
        """How many there are."""
        return len(self._values)
