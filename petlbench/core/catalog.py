"""The four catalogues: methods, datasets, sweeps and reports, each a folder in which one file is one entry.

A catalogue is read without importing what is in it: a method's card is taken from the syntax tree of its
file and the other cards are TOML, so that listing costs milliseconds and needs no torch.
"""

from __future__ import annotations

import ast
import importlib.util
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, get_args

from petlbench.core.errors import InputError, unknown_name

__all__ = ["KINDS", "Catalog", "Entry", "Kind", "MethodCard", "shipped_folder"]

Kind = Literal["method", "dataset", "sweep", "report"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_SUFFIX: Mapping[Kind, str] = {"method": ".py", "dataset": ".toml", "sweep": ".toml", "report": ".toml"}
_PACKAGE = Path(__file__).resolve().parents[1]
_LOCAL = Path("petlbench_catalog")


@dataclass(frozen=True)
class MethodCard:
    """What is known of a method before its file is imported: written as literals in the class body.

    Args:
        name: The name used on the command line.
        title: The name used in tables.
        family: One of the field's families, for example ``"low-rank"`` or ``"side network"``.
        year: Year of publication.
        paper: Address of the paper (DOI or arXiv).
        summary: One sentence that says what is learned.
    """

    name: str
    title: str
    family: str
    year: int
    paper: str
    summary: str = ""


@dataclass(frozen=True)
class Entry:
    """One thing in a catalogue.

    Args:
        kind: Which catalogue.
        name: The name used on the command line.
        file: The file that defines it.
        title: The name used in tables.
        attribute: The class to take from the file (methods only).
        card: The card's fields as they stand in the file.
    """

    kind: Kind
    name: str
    file: Path
    title: str
    attribute: str = ""
    card: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def shipped(self) -> bool:
        """Whether petlbench brought it, rather than the user."""
        return shipped_folder(self.kind) == self.file.parent


class Catalog:
    """All entries that can be named: the shipped ones and the user's own beside them.

    Args:
        folders: Folders given with ``--catalog``; each holds ``methods/``, ``datasets/``, ``sweeps/`` and
            ``reports/``, or method files directly.

    Raises:
        InputError: When a folder does not exist.
    """

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        for folder in folders:
            if not folder.is_dir():
                raise InputError(
                    f"--catalog {folder}: there is no such folder",
                    hint="give the folder that holds your method files, or methods/ and datasets/",
                    kind="unknown_catalog",
                )
        self.folders = tuple(folder.resolve() for folder in folders)
        self._known: dict[Kind, Mapping[str, Entry]] = {}

    def entries(self, kind: Kind) -> Mapping[str, Entry]:
        """Return every entry of a kind by name, in alphabetical order.

        Raises:
            InputError: When a file is broken or two files define one name.
        """
        if kind not in self._known:
            self._known[kind] = _by_name(self._read(kind))
        return self._known[kind]

    def find(self, kind: Kind, name: str) -> Entry:
        """Return one entry.

        Raises:
            InputError: When nothing has that name; the nearest names are given.
        """
        entries = self.entries(kind)
        if name not in entries:
            raise unknown_name(kind, name, entries)
        return entries[name]

    @cached_property
    def _installed(self) -> list[Path]:
        return _installed_folders()

    def _read(self, kind: Kind) -> Iterator[Entry]:
        for folder in self._sources(kind):
            for file in sorted(folder.glob("*" + _SUFFIX[kind])):
                if not file.name.startswith(("_", ".")):
                    yield from _read_file(kind, file.resolve())

    def _sources(self, kind: Kind) -> list[Path]:
        sources = [shipped_folder(kind)]
        for folder in (*self.folders, *self._installed, _LOCAL.resolve()):
            sources.append(folder / f"{kind}s")
            if kind == "method":
                sources.append(folder)
        return list(dict.fromkeys(source for source in sources if source.is_dir()))


def shipped_folder(kind: Kind) -> Path:
    """Find a shipped folder inside the package (wheel) or beside it (checkout)."""
    inside = _PACKAGE / f"{kind}s"
    return (inside if inside.is_dir() else _PACKAGE.parent / f"{kind}s").resolve()


def _installed_folders() -> list[Path]:
    """Folders of the packages that name themselves under the entry point group ``petlbench.catalog``."""
    folders: list[Path] = []
    for point in entry_points(group="petlbench.catalog"):
        try:
            spec = importlib.util.find_spec(point.value)
        except ModuleNotFoundError:  # a package in front of the module is not there
            spec = None
        if spec is None:
            raise InputError(
                f"entry point petlbench.catalog '{point.name}' names '{point.value}', which is not installed",
                hint="install the package again, or remove it",
                kind="broken_catalog",
            )
        folders += [Path(place).resolve() for place in spec.submodule_search_locations or ()]
    return folders


def _by_name(entries: Iterator[Entry]) -> Mapping[str, Entry]:
    found: dict[str, Entry] = {}
    for entry in entries:
        if entry.name in found:
            raise InputError(
                f"the {entry.kind} name '{entry.name}' is taken twice: {found[entry.name].file} and {entry.file}",
                hint="rename one of the two; no entry overrides another",
                kind="duplicate_name",
            )
        found[entry.name] = entry
    return dict(sorted(found.items()))


def _read_file(kind: Kind, file: Path) -> Iterator[Entry]:
    try:
        text = file.read_text(encoding="utf-8")
        if kind == "method":
            yield from _method_entries(file, text)
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


def _method_entries(file: Path, text: str) -> Iterator[Entry]:
    """Find every class whose body holds ``card = MethodCard(...)`` with literal arguments."""
    found = False
    for node in ast.parse(text, str(file)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for statement in node.body:
            call = _card_call(statement)
            if call is not None:
                found = True
                card = _literal_card(call)
                yield Entry("method", card.name, file, card.title, attribute=node.name, card=asdict(card))
    if not found:
        raise ValueError("no class in it has a 'card = MethodCard(...)'")


def _card_call(statement: ast.stmt) -> ast.Call | None:
    if isinstance(statement, ast.Assign):
        targets: list[ast.expr] = statement.targets
    elif isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    else:
        return None
    if not any(isinstance(target, ast.Name) and target.id == "card" for target in targets):
        return None
    value = statement.value
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "MethodCard":
        return value
    return None


def _literal_card(call: ast.Call) -> MethodCard:
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
        wanted = int if spec.type == "int" else str
        if not isinstance(getattr(card, spec.name), wanted):
            raise ValueError(f"line {call.lineno}: the card's '{spec.name}' is no {wanted.__name__}")
    if not card.name.isidentifier():
        raise ValueError(f"line {call.lineno}: the card's name '{card.name}' is no identifier")
    return card
