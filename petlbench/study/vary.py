"""One setting that takes several values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from petlbench.core.errors import InputError, unknown_name
from petlbench.core.request import Request

__all__ = ["Plain", "Vary"]

Plain = int | float | str

_FIELDS = ("image-size", "precision", "attention-kernel", "backbone")
_TRAINING = ("batch-size", "accumulate", "optimizer")
_OF_METHOD = "method."


@dataclass(frozen=True)
class Vary:
    """One thing that takes several values.

    Args:
        name: As on the command line: an option of a run, or ``method.KEY``.
        values: At least one, as they were written.
    """

    name: str
    values: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Vary:
        """Read ``NAME=V1,V2,...``.

        Raises:
            InputError: When it has another form, or names nothing that can be varied.
        """
        name, _, listed = (part.strip() for part in text.partition("="))
        values = tuple(dict.fromkeys(value.strip() for value in listed.split(",")))
        if not all(values):
            raise _refuse(f"{text}: not of the form NAME=V1,V2,...")
        if name not in {*_FIELDS, *_TRAINING} and not name.startswith(_OF_METHOD):
            raise unknown_name("name to vary", name, [*_FIELDS, *_TRAINING, f"{_OF_METHOD}KEY"])
        if name == "image-size":
            for value in values:
                if not value.isdecimal():
                    raise _refuse(f"image-size: '{value}' is no number of pixels")
        return cls(name, values)

    def requests(self, request: Request) -> list[tuple[Request, dict[str, Plain]]]:
        """A request for each value, with the value by its name beside it."""
        return [(self._apply(request, value), {self.name: _plain(value)}) for value in self.values]

    def _apply(self, request: Request, value: str) -> Request:
        field = self.name.replace("-", "_")
        if self.name in _TRAINING:
            return replace(request, training={**request.training, field: value})
        if self.name in _FIELDS:
            setting: Any = int(value) if self.name == "image-size" else value
            return replace(request, **{field: setting})
        key = self.name.removeprefix(_OF_METHOD)
        return replace(request, method_settings={**request.method_settings, key: value})


def _refuse(message: str) -> InputError:
    return InputError(f"--vary {message}", hint="for example --vary image-size=224,384,512", kind="bad_setting")


def _plain(text: str) -> Plain:
    """A number where the text is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
