"""The order of a dataset's classes: declared by a card or a setting, or plain from numbers; else there is none."""

from __future__ import annotations

from collections.abc import Sequence

from petlbench.core.errors import InputError
from petlbench.core.text import items_of

UNORDERED = "none"
"""What the setting says where numbers name classes that have no order."""

ORDER_HELP = "Class names, the least grade first, with commas between; 'none' where numbers are no grades."

ONE_CLASS = frozenset(("binary", "multiclass", "ordinal"))
"""The task types of one class an image, among which an order decides."""


def are_numbered(names: Sequence[str]) -> bool:
    """Whether all class names are whole numbers, which are taken as grades."""
    return all(name.isascii() and name.isdigit() for name in names)


def task_name(classes: Sequence[str], order: str = "") -> str:
    """Return the name of the task type of one class an image, for classes whose order the setting `order` says.

    Two classes are the same with and without an order.
    """
    if len(classes) == 2:
        return "binary"
    has_order = order != UNORDERED if order else are_numbered(classes)
    return "ordinal" if has_order else "multiclass"


def order_of(order: str, classes: Sequence[str], name: str) -> tuple[str, ...]:
    """Return a dataset's classes in the order that the setting says; as they are where it names none.

    Raises:
        InputError: When it does not name each of them once.
    """
    if order in ("", UNORDERED):
        return tuple(classes)
    names = items_of(order)
    if sorted(names) != sorted(classes):
        raise InputError(
            f"the dataset '{name}': order = '{order}' does not name each class once",
            hint=f"the classes are: {', '.join(classes)}; quote a name that holds a comma",
            kind="bad_setting",
        )
    return tuple(names)
