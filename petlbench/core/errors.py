"""The errors that petlbench raises on purpose: what is wrong, where, and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import partial

from petlbench.core.text import without_password


class PetlbenchError(Exception):
    """An error that a user can act on; shown as one or two lines, without a traceback.

    Args:
        message: Names the thing, its value and the place.
        hint: The next step, as an instruction; empty when the message says it all.
        kind: A stable identifier in snake_case that `--json` output carries.
    """

    exit_status = 1

    def __init__(self, message: str, *, hint: str = "", kind: str = "error") -> None:
        # Wherever it is shown or stored, an address has no password in it.
        self.message, self.hint = without_password(message), without_password(hint)
        super().__init__(self.message)
        self.kind = kind

    def __reduce__(self) -> tuple[object, ...]:
        """Keep hint and kind when the error crosses a process border."""
        return partial(type(self), hint=self.hint, kind=self.kind), (self.message,)


class InputError(PetlbenchError):
    """The command, a setting or a file given by the user is wrong (exit status 2)."""

    exit_status = 2


class RunError(PetlbenchError):
    """A run that started well could not be finished (exit status 1)."""


class Stopped(Exception):  # noqa: N818 - a decision of those who watch a run, and no fault of it
    """A run is to end before its last epoch; raised where its progress is told.

    Args:
        status: The status that its result gets: ``pruned``, ``timeout`` or ``interrupted``.
        message: Why.
    """

    def __init__(self, status: str, message: str) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message


def unknown_name(what: str, name: str, known: Iterable[str], *, hint: str = "") -> InputError:
    """Return the error, of kind ``unknown_<what>``, for a name that nothing answers to, with the nearest that exist.

    Args:
        what: The kind of thing that was asked for, for example ``"method"``.
        name: The name that was given.
        known: Every name that would have been accepted.
        hint: What to do when no name is near.
    """
    candidates = {candidate.lower().replace("-", "_"): candidate for candidate in sorted(known)}
    plain = name.lower().replace("-", "_")
    close = [plain] if plain in candidates else difflib.get_close_matches(plain, candidates, n=3, cutoff=0.5)
    near = " or ".join(candidates[each] for each in close)
    advice = f"did you mean {near}?" if near else hint or "known: " + (", ".join(candidates.values()) or "none")
    return InputError(f"unknown {what} '{name}'", hint=advice, kind=f"unknown_{what.replace(' ', '_')}")
