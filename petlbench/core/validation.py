"""Validation of settings given as plain values, with errors that name the key, the bounds and the known keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from petlbench.core.errors import InputError, unknown_name

__all__ = ["validate_settings"]

M = TypeVar("M", bound=BaseModel)


def validate_settings(model: type[M], values: Mapping[str, Any], owner: str) -> M:
    """Build a settings model from plain values.

    Args:
        model: The pydantic model, which refuses unknown keys.
        values: Values by key; strings are converted to the field's type.
        owner: Whose settings these are, for the error.

    Raises:
        InputError: When a key is unknown or a value is out of bounds.
    """
    for key in values:
        if key not in model.model_fields:
            names = model.model_fields
            hint = unknown_name("setting", key, names).hint if names else f"{owner} has no settings"
            raise InputError(f"{owner} has no setting '{key}'", hint=hint, kind="unknown_setting")
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        path = [str(part) for part in first["loc"]] or ["settings"]
        field = model.model_fields.get(path[0])
        raise InputError(
            f"{owner}: {'.'.join(path)} = {first['input']!r} is refused: {first['msg']}",
            hint=f"{path[0]}: {field.description}" if field is not None and field.description else "",
            kind="bad_setting",
        ) from error
