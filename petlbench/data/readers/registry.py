"""Which reader reads a dataset, with which settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.data.readers.base import Reader

__all__ = ["check_settings", "load_reader", "recognise"]


def load_reader(kind: str, catalog: Catalog) -> type[Reader]:
    """Return the reader of that name in the catalogues.

    Raises:
        InputError: When nothing has that name, or its file cannot be imported.
    """
    return cast("type[Reader]", catalog.load("reader", kind, Reader))  # type: ignore[type-abstract]


def recognise(path: Path, catalog: Catalog) -> type[Reader]:
    """Return the reader of an existing file or folder that has no card.

    Raises:
        InputError: When no reader knows it, or two readers of one rank claim it.
    """
    readers = [load_reader(name, catalog) for name in catalog.entries("reader")]
    claims = sorted((each for each in readers if each.recognises(path)), key=lambda each: -each.card.rank)
    if not claims:
        raise InputError(
            f"the dataset {path} is a file of an unknown kind",
            hint="give a catalogue name, a folder of class folders, a .csv file or a card (.toml)",
            kind="unknown_dataset",
        )
    if len(claims) > 1 and claims[0].card.rank == claims[1].card.rank:
        names = " and ".join(each.card.name for each in claims[:2])
        raise InputError(
            f"the readers {names} both claim {path}",
            hint="write a card whose [reader] names one of them",
            kind="ambiguous_dataset",
        )
    return claims[0]


def check_settings(name: str, reader: type[Reader], settings: Mapping[str, Any]) -> BaseModel:
    """Return all settings of a reader: those that are given, over its defaults.

    Args:
        name: The dataset's short name.
        reader: The reader.
        settings: The card's, and over them the user's, by name.

    Raises:
        InputError: When a setting is unknown or out of bounds.
    """
    model = reader.Settings
    hint = f"settings: {_in_words(model)}"
    for key in settings:
        if key not in model.model_fields:
            raise InputError(f"the dataset '{name}' has no setting '{key}'", hint=hint, kind="unknown_setting")
    try:
        return model.model_validate(dict(settings))
    except ValidationError as error:
        first = error.errors()[0]
        fault = first["msg"].removeprefix("Value error, ")
        if first["loc"]:
            key = str(first["loc"][0])
            fault = f"{key} = {settings[key]!r} is wrong: {fault[0].lower()}{fault[1:]}"
        raise InputError(f"the dataset '{name}': {fault}", hint=hint, kind="bad_setting") from error


def _in_words(model: type[BaseModel]) -> str:
    """Return every setting with its bounds and default, for example ``image_count (60 to 100000, default 600)``."""
    words: list[str] = []
    for name, field in model.model_fields.items():
        low = next((m.ge for m in field.metadata if hasattr(m, "ge")), None)
        high = next((m.le for m in field.metadata if hasattr(m, "le")), None)
        bounds = f"{low} to {high}, " if low is not None and high is not None else ""
        words.append(f"{name} ({bounds}default {field.default})")
    return ", ".join(words) or "none"
