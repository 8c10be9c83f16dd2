"""Entries of the catalogues as their files say, read without importing them."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from petlbench.core.entry import KIND_SPECS, Entry, Kind, MethodCard, shipped_folder
from petlbench.core.errors import InputError

__all__ = ["read_entries"]


def read_entries(kind: Kind, file: Path, *, is_its_own: bool) -> Iterator[Entry]:
    """Read the entries of a kind in a file.

    Args:
        kind: The kind.
        file: The file.
        is_its_own: Whether the file lies in the kind's own folder, rather than among files of all kinds.
    """
    try:
        text = file.read_text(encoding="utf-8")
        if KIND_SPECS[kind].card:
            yield from _python_entries(kind, file, text, is_its_own=is_its_own)
        else:
            card = tomllib.loads(text)
            if not isinstance(card.get("title"), str):
                raise ValueError("it has no 'title'")
            yield Entry(kind, file.stem, file, card["title"], card=card)
    except (OSError, UnicodeDecodeError, SyntaxError, ValueError) as error:
        raise InputError(
            f"the {kind} file {file} is broken: {error}",
            hint="mend the file, or move it out of the catalogue",
            kind="broken_catalog",
        ) from error


def _python_entries(kind: Kind, file: Path, text: str, *, is_its_own: bool) -> Iterator[Entry]:
    """Find every class whose body holds a card of the kind, and every constant that is one."""
    calls = list(_card_calls(ast.parse(text, str(file))))
    for attribute, card, call in calls:
        if card == KIND_SPECS[kind].card:
            fields_ = _literal_method_card(call) if kind == "method" else _literals(call)
            yield Entry(kind, fields_["name"], file, fields_["title"], attribute=attribute, card=fields_)
    cards = {KIND_SPECS[kind].card} if is_its_own else {spec.card for spec in KIND_SPECS.values()}
    is_a_room = bool(KIND_SPECS[kind].package) and file.parent == shipped_folder(kind)
    if not is_a_room and not any(card in cards for _, card, _ in calls):
        raise ValueError(f"no class in it has a 'card = {KIND_SPECS[kind].card}(...)'")


def _card_calls(tree: ast.Module) -> Iterator[tuple[str, str, ast.Call]]:
    """Give the attribute, the card's class and the call, for everything in a file that may be an entry."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            for statement in node.body:
                for name, card, call in _calls_of(statement):
                    if name == "card":
                        yield node.name, card, call
        else:
            yield from _calls_of(node)


def _calls_of(statement: ast.stmt) -> Iterator[tuple[str, str, ast.Call]]:
    if not isinstance(statement, ast.Assign | ast.AnnAssign) or not isinstance(statement.value, ast.Call):
        return
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    function = statement.value.func
    card = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    yield from ((target.id, card, statement.value) for target in targets if isinstance(target, ast.Name))


def _literals(call: ast.Call) -> dict[str, Any]:
    """The arguments of a card that are literals; its name and its title have to be."""
    keywords = ((keyword.arg, keyword.value) for keyword in call.keywords if keyword.arg is not None)
    values = {name: node.value for name, node in keywords if isinstance(node, ast.Constant)}
    for name in ("name", "title"):
        if not isinstance(values.get(name), str):
            raise ValueError(f"line {call.lineno}: the card's '{name}' is not a text written out")
    return values


def _literal_method_card(call: ast.Call) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg is None:
            raise ValueError(f"line {call.lineno}: a card is written out, without **")
        try:
            values[keyword.arg] = ast.literal_eval(keyword.value)
        except ValueError as error:
            raise ValueError(f"line {keyword.value.lineno}: the card's '{keyword.arg}' is not a literal") from error
    try:
        card = MethodCard(**values)
    except TypeError as error:
        raise ValueError(f"line {call.lineno}: {error}") from error
    for spec in fields(card):
        expected = int if spec.type == "int" else str
        if not isinstance(getattr(card, spec.name), expected):
            raise ValueError(f"line {call.lineno}: the card's '{spec.name}' is no {expected.__name__}")
    if not card.name.isidentifier():
        raise ValueError(f"line {call.lineno}: the card's name '{card.name}' is no identifier")
    return asdict(card)
