"""Numbers with as many digits as their uncertainty leaves them."""

from __future__ import annotations

import math

_MOST_DECIMALS = 6


def round_by_uncertainty(value: float, std: float | None) -> str:
    """Write a number with the digits that its uncertainty leaves it.

    The standard deviation keeps two digits where its first three are at most 354, one up to 949, and is 1000 from 950
    on; the value is rounded to the same place: the rule of the Particle Data Group (Review of Particle Physics,
    introduction, section 5.3).

    Args:
        value: The number.
        std: Its standard deviation, in the same unit; None, 0 or not finite where none is known.

    Returns:
        The number in decimals; to the digits of a float of 6 decimals, without trailing zeros, where no deviation is
        known.

    Example:
        >>> round_by_uncertainty(90.763, 1.21)
        '90.8'
    """
    if not math.isfinite(value):
        return str(value)
    decimals = decimals_of(std)
    plain = f"{value:.{_MOST_DECIMALS}f}".rstrip("0").rstrip(".")
    text = plain if decimals is None else _to_place(value, decimals)
    return text if text.strip("-0.") else text.removeprefix("-")


def with_uncertainty(value: float, std: float | None) -> str:
    """Write a number and its standard deviation, both rounded to the same place.

    Args:
        value: The number.
        std: Its standard deviation, in the same unit; None, 0 or not finite where none is known.

    Example:
        >>> with_uncertainty(90.763, 1.21)
        '90.8 ± 1.2'
    """
    text, decimals = round_by_uncertainty(value, std), decimals_of(std)
    return text if std is None or decimals is None else f"{text} ± {_to_place(std, decimals)}"


def decimals_of(std: float | None) -> int | None:
    """The place, counted behind the decimal point, to which a deviation is given; None where none is known."""
    if std is None or not (math.isfinite(std) and std > 0):
        return None
    exponent = math.floor(math.log10(std))
    first_three = round(std / 10.0 ** (exponent - 2))
    # From 950 on it is 1000, of which one place less is two digits again.
    return -exponent + (1 if first_three <= 354 else 0)


def _to_place(value: float, decimals: int) -> str:
    return f"{round(value, decimals):.{max(0, decimals)}f}"
