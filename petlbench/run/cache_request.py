"""What a request asks of preloaded features, checked against what its method can have."""

from __future__ import annotations

from typing import Any

from petlbench.core.errors import InputError
from petlbench.core.request import AUTO_FORM, Request
from petlbench.features.frozen import has_forms
from petlbench.features.quantization import DEFAULT_CACHE_PRECISION
from petlbench.models.info import BackboneInfo
from petlbench.models.method import Method


def cache_precision(request: Request, preload: bool) -> str | None:
    """The precision of what is preloaded; None where nothing is.

    Raises:
        InputError: When one is asked for and nothing is preloaded.
    """
    if preload:
        return request.cache_precision or DEFAULT_CACHE_PRECISION
    if request.cache_precision is not None:
        raise InputError(
            f"--cache-precision {request.cache_precision}: nothing is preloaded",
            hint="leave it out, or choose a method and settings with preloading",
            kind="bad_setting",
        )
    return None


def cache_form(request: Request, method: Method[Any], info: BackboneInfo, preload: bool) -> str:
    """The form of what is preloaded; where that is left to the disk, the usual one until it is settled.

    Raises:
        InputError: When one is asked for that cannot be had.
    """
    form = "keys_values" if request.cache_form == AUTO_FORM else request.cache_form
    if form != "tokens":
        return form
    reason = info.lacks("linear_keys")
    if not has_forms(method.features(info)):
        reason = f"{request.method}, with these settings, takes no keys and values from the frozen backbone"
    if not preload:
        reason = "nothing is preloaded"
    if reason is not None:
        hint = "leave it out, or choose a method and settings with preloaded keys and values, such as fpt"
        raise InputError(f"--cache-form {form}: {reason}", hint=hint, kind="bad_setting")
    return form
