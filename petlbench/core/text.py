"""Text of other people's, made fit for a terminal, a table and a log."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence

# Marks that turn the direction of the text behind them, so that a line reads otherwise than it is.
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_UNSEEN = frozenset(("Cc", "Cs", "Zl", "Zp"))
_LAYOUT, _PARTS = ("\n", "\r\n", "\t"), re.compile(r"(\r?\n|\t)")
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")
_ADDRESS = re.compile(r"(?<=://)\S+|(?<!\S)[^\s:/@]+:[^\s/@]+@\S+")
# A path from a drive's root or a home, whole in quotes or up to a blank; what follows :/// is one of a database.
_FOLDERS = re.compile(
    r"(?P<quote>['\"])(?:/|~/|[A-Za-z]:\\)[^'\"\n]*[/\\](?P<quoted>[^'\"/\\\n]+)(?P=quote)"
    r"|(?:(?<![\w.:/<%])|(?<=:///))(?:/|~/|[A-Za-z]:\\)(?:[^\s'\",;:()<>|/\\]+[/\\])+(?P<bare>[^\s'\",;:()<>|/\\]+)"
)
_MINUS = re.compile(r"(?<![\w-])-(?=\d)")
_ABSOLUTE = re.compile(r"(?:/|~/|[A-Za-z]:\\)[^\n,;]*")
_SECRET = re.compile(  # what MLflow calls the key of a view is its name
    r"([?&;](?!viewStateShareKey=)[^=&;\s]*(?:pass|pwd|token|secret|key|sig|auth|credential)[^=&;\s]*=)[^&;#\s]+?(?=[&;#]|['\")\],.]*(?:\s|$))",
    re.IGNORECASE,
)


def printable(text: str) -> str:
    r"""The text with what would steer a terminal made visible: ``\x1b`` for ESC, ``\n`` for a line's end.

    Args:
        text: Any text, for example a file's or a class's name. Letters of every script stay as they are.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_visible, text))


def shown(text: str) -> str:
    """The text as a terminal and a log get it: its lines stay, all else that would steer is visible, no passwords."""
    text = without_password(text)
    if text.isascii() and text.isprintable():
        return text
    return "".join(part if part in _LAYOUT else printable(part) for part in _PARTS.split(text))


def all_shown(texts: Sequence[str]) -> list[str]:
    """Each text as `shown` gives it; where nothing in any of many has to change, they are looked at together."""
    together = " ".join(texts)
    return [*texts] if shown(together) == together else [*map(shown, texts)]


def csv_cell(value: object) -> object:
    """The value as a table's cell: text that a spreadsheet would take for a formula begins with an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.lstrip("'").startswith(_FORMULA) else value


def plain_cell(cell: str) -> str:
    """The text that `csv_cell` made a table's cell of."""
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(_FORMULA) else cell


def items_of(text: str) -> list[str]:
    """What stands between a setting's commas, without blanks around it; what holds a comma stands in quotes."""
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), skipinitialspace=True))
    except csv.Error:  # it is longer than any names
        rows = [[text]]
    return [item.strip() for row in rows for item in row if item.strip()]


def comma_separated(items: Iterable[str]) -> str:
    """The text that `items_of` takes apart again."""
    return ",".join('"{}"'.format(item.replace('"', '""')) if set(item) & set(',"\r\n') else item for item in items)


def first_few(items: Sequence[str], most: int, separator: str = ", ") -> str:
    """The first items with a separator between them, and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return separator.join(items[:most]) + more


def without_password(text: str) -> str:
    """The text with the passwords, tokens and keys of the addresses in it left out."""
    if "@" not in text and "=" not in text and "://" not in text:  # most of a long list's cells
        return text
    return _SECRET.sub(r"\1***", _ADDRESS.sub(lambda match: _without_user(match[0]), text))


def without_folders(text: str) -> str:
    """The text with the last part alone of every absolute path that is in it."""
    if "/" not in text and "\\" not in text:
        return text
    if _ABSOLUTE.fullmatch(text):  # a path alone, which may hold blanks
        return re.split(r"[/\\]", text.rstrip("/\\"))[-1]
    return _FOLDERS.sub(lambda match: match["bare"] or f"{match['quote']}{match['quoted']}{match['quote']}", text)


def _without_user(address: str) -> str:
    """Leave the password out of what follows ``://``; what cannot be told from a password counts as one."""
    place = re.split(r"[?#]", address)[0]
    authority = place.split("/")[0]
    # A password may hold @ and /: its end is the last @ of the address, before the query if there is one.
    user, mark, _ = address.rpartition("@") if ":" in authority and "@" not in place else place.rpartition("@")
    if not mark or ("@" not in authority and ":" not in authority):
        return address
    name, colon, _ = user.partition(":")
    return (f"{name}:" if colon else "") + "***@" + address[len(user) + 1 :]


def _visible(character: str) -> str:
    if unicodedata.category(character) in _UNSEEN or character in _TURNING:
        return character.encode("unicode_escape", "surrogatepass").decode("ascii")
    return character


def with_minus(text: str) -> str:
    """The text as type sets it: with the sign of subtraction before a negative number, where a hyphen stood."""
    return _MINUS.sub("−", text)


def as_sentence(text: str) -> str:
    """The text with a capital at its beginning."""
    return text[:1].upper() + text[1:]
