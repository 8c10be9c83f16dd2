"""Data and code inside a page: nothing in them can end their element, and large parts are compressed."""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["as_json", "pack", "rounded"]

_DIGITS = 6
# What would end the script element, start a comment in it, or end a line of JavaScript that older readers take it for.
_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def as_json(value: Any) -> str:
    """JSON that can stand in a script element, whatever its texts are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).translate(_ESCAPES)


def pack(text: str) -> str:
    """Compress a text to base64 of gzip, which browsers unpack themselves; the same text gives the same characters."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode("ascii")


def rounded(value: Any) -> Any:
    """Plain values with six significant digits, which is more than a page shows; no NaN and no infinity."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): rounded(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [rounded(item) for item in value]
    return value if value is None or isinstance(value, int | str) else str(value)
