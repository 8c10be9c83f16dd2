"""Text in LaTeX: any character for itself, and how wide it is."""

from __future__ import annotations

import re
import unicodedata

from petlbench.report.formats import one_line

_COMMANDS = (
    r"\textbackslash \textasciitilde \textasciicircum \textless \textgreater \textbar \textquotedbl \textasciigrave "
    r"\textendash \textemdash \textdagger \ldots"
)
_SYMBOLS = r"\pm \times \cdot \geq \leq \approx \rightarrow \mu \kappa - ^2 ^3"
_ESCAPED = {
    **{char: rf"\{char}" for char in "{}$&%#_"},
    **{char: f"{command}{{}}" for char, command in zip('\\~^<>|"`–—†…', _COMMANDS.split(), strict=True)},
    **{char: f"${symbol}$" for char, symbol in zip("±×·≥≤≈→µκ−²³", _SYMBOLS.split(), strict=True)},
    **dict(zip("“”’‘", ("``", "''", "'", "`"), strict=True)),
}
# Two hyphens would become a dash.
_DASHES = re.compile(r"-(?=-)")
# What T1 has glyphs for: Latin-1, and some letters beyond.
_LAST_GLYPH = 0xFF
_FURTHER_GLYPHS = frozenset("ŁłŒœıŠšŽžŸ")
# Widths in points of characters of Latin Modern at eight points, as TeX measures them.
_WIDTHS = {
    **dict.fromkeys(".,:;'|!il", 2.4),
    **dict.fromkeys(" -()[]Ijfrst", 3.4),
    **dict.fromkeys("0123456789", 4.3),
    **dict.fromkeys("mwMW%±+−×≤≥≈→—", 7.8),
}
_LETTER, _CAPITAL = 4.6, 6.3
_MILLIMETRE = 72.27 / 25.4  # points

BOLD = 1.17
"""How much wider bold type is."""


def escape(text: str) -> str:
    """Take every character for itself; one that pdfLaTeX has no glyph for becomes its nearest, or a question mark."""
    return _DASHES.sub("-{}", "".join(_escaped(char) for char in one_line(text) if char.isprintable()))


def width_of(text: str) -> float:
    """How wide a text is in type of eight points, in millimetres."""
    return sum(_WIDTHS.get(char, _CAPITAL if char.isupper() else _LETTER) for char in text) / _MILLIMETRE


def _escaped(char: str) -> str:
    if char in _ESCAPED:
        return _ESCAPED[char]
    if ord(char) <= _LAST_GLYPH or char in _FURTHER_GLYPHS:
        return char
    nearest = unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode()
    return "".join(_ESCAPED.get(letter, letter) for letter in nearest) or "?"
