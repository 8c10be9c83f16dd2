"""``--set group.key=value``."""

from __future__ import annotations

from collections.abc import Iterable

from petlbench.errors import InputError, unknown_name

__all__ = ["parse_assignments"]


def parse_assignments(assignments: Iterable[str], groups: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Sort ``--set group.key=value`` into one mapping a group.

    Args:
        assignments: The texts as given.
        groups: The groups that exist.

    Raises:
        InputError: When a text has another form or names another group.
    """
    sorted_: dict[str, dict[str, str]] = {group: {} for group in groups}
    for text in assignments:
        path, equals, value = text.partition("=")
        group, dot, key = path.strip().partition(".")
        if not (equals and dot and key):
            raise InputError(
                f"--set {text}: not of the form GROUP.KEY=VALUE",
                hint="for example --set method.rank=8",
                kind="bad_setting",
            )
        if group not in sorted_:
            raise unknown_name("setting group", group, groups)
        sorted_[group][key] = value.strip()
    return sorted_
