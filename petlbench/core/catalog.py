"""The catalogues: what has a name and is one file each, the shipped ones and a user's own alike.

A catalogue is read without importing what is in it: a TOML card is parsed, and the card of what is written in Python is
taken from the syntax tree of its file, so that listing costs milliseconds and needs no torch. In Python an entry is
either a class with ``card = MethodCard(name=..., title=...)`` in its body, or a constant that is a card itself, such as
``AUC = Metric(name="auc", title="AUC", ...)``; which kind it is, the card's class says.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from functools import cached_property, lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

from petlbench.core.entry import KIND_SPECS, Card, Entry, Kind, MethodCard, shipped_folder
from petlbench.core.errors import InputError, unknown_name
from petlbench.core.user_files import read_text

T = TypeVar("T")
Folder = str | Path
Folders = Folder | Sequence[Folder]

_LOCAL = Path("petlbench_catalog")


class Catalog:
    """All entries that can be named: the shipped ones and the user's own beside them.

    Args:
        folders: Folders given with ``--catalog``; each holds ``methods/``, ``datasets/``, ``metrics/`` and so on, or
            Python files directly, each with entries of any kind.

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
        self._in_files: dict[Kind, Mapping[str, Entry]] = {}
        self._read_from: dict[str, tuple[int, ...]] = {}

    def is_as_read(self) -> bool:
        """Whether no file and no folder that it was read from, nor one for packages, has changed since."""
        return all(_changed(path) == before for path, before in self._read_from.items())

    def entries(self, kind: Kind) -> Mapping[str, Entry]:
        """Return every entry of a kind by name, in alphabetical order.

        Raises:
            InputError: When a file is broken or two files define one name.
        """
        if kind not in self._in_files:
            self._in_files[kind] = _by_name(self._read(kind))
        registered = [entry for entry in _REGISTERED.values() if entry.kind == kind]
        return _by_name([*self._in_files[kind].values(), *registered]) if registered else self._in_files[kind]

    def find(self, kind: Kind, name: str) -> Entry:
        """Return one entry.

        Raises:
            InputError: When nothing has that name; the nearest names are given.
        """
        entries = self.entries(kind)
        if name not in entries:
            raise unknown_name(kind, name, entries)
        return entries[name]

    def load(self, kind: Kind, name: str, expected: type[T]) -> T:
        """Return what an entry defines, imported, as `Entry.load` checks it.

        Raises:
            InputError: When nothing has that name, its file cannot be imported, or it is something else.
        """
        return self.find(kind, name).load(expected)

    @cached_property
    def _installed(self) -> list[Path]:
        """Folders of the packages that name themselves under the entry point group ``petlbench.catalog``."""
        folders: list[Path] = []
        for point in _points(tuple((folder, self._noted(folder)) for folder in sys.path)):
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
            folders += [Path(folder).resolve() for folder in spec.submodule_search_locations or ()]
        return folders

    def _read(self, kind: Kind) -> Iterator[Entry]:
        spec, folders = KIND_SPECS[kind], [shipped_folder(kind)]
        for folder in (*self.folders, *self._installed, _LOCAL.resolve()):
            folders += [folder / spec.folder, folder] if spec.card else [folder / spec.folder]
        for folder in dict.fromkeys(folders):
            inside = filter(Path.is_dir, folder.glob("*")) if spec.families else ()
            for place in (folder, *inside):
                self._noted(place)
            files = [*folder.glob("*" + spec.suffix), *(folder.glob("*/*" + spec.suffix) if spec.families else ())]
            for file in sorted(files):
                if not any(part.startswith(("_", ".")) for part in file.relative_to(folder).parts):
                    family = "" if file.parent == folder else f"{file.parent.name}/"
                    is_its_own = folder.name == spec.folder
                    self._noted(file)
                    yield from read_entries(kind, file.resolve(), is_its_own=is_its_own, family=family)

    def _noted(self, path: Folder) -> tuple[int, ...]:
        return self._read_from.setdefault(str(path), _changed(path))


@lru_cache(maxsize=1)
def _points(_folders: tuple[tuple[str, tuple[int, ...]], ...]) -> Sequence[EntryPoint]:
    """What packages name as their catalogues, looked up again once something was installed into a folder."""
    return tuple(entry_points(group="petlbench.catalog"))


def _changed(path: Folder) -> tuple[int, ...]:
    """What changes with a file, and with the entries of a folder; empty where there is neither."""
    try:
        status = os.stat(path or ".")
    except OSError:
        return ()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


_REGISTERED: dict[tuple[Kind, str], Entry] = {}


def register(value: T) -> T:
    """Put a method, metric, reader, … that was written in Python into every catalogue of this process.

    What is registered again from the same module, as by a notebook's cell that runs twice, replaces what it was.

    Args:
        value: A class with a ``card``, or a card itself.

    Returns:
        The value, so that this serves as a decorator.

    Raises:
        InputError: When it has no card, or another module has registered that name.
    """
    card = value if isinstance(value, Card) else getattr(value, "card", None)
    if not isinstance(card, Card):
        raise InputError(
            f"{value!r} has no card, so nothing says what it is called",
            hint="give the class a card, such as card = MethodCard(name='mine', title='Mine')",
            kind="broken_catalog",
        )
    attribute = getattr(value, "__qualname__", card.name)
    plain = {name: each for name, each in vars(card).items() if isinstance(each, str | int | float | bool)}
    entry = Entry(card.kind, card.name, _file_of(value), card.title, attribute, plain, value)
    earlier = _REGISTERED.get((card.kind, card.name))
    if earlier is not None and earlier.file != entry.file:
        raise _taken_twice(earlier, entry)
    _REGISTERED[card.kind, card.name] = entry
    return value


def is_registered() -> bool:
    """Whether anything was registered in this process."""
    return bool(_REGISTERED)


def _file_of(value: Any) -> Path:
    """The file that a class or a constant comes from; ``<MODULE>`` where it is none, as in a notebook."""
    module = sys.modules.get(getattr(value, "__module__", ""), None)
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if file and isinstance(value, type) else Path(f"<{getattr(module, '__name__', '')}>")


def _by_name(entries: Iterable[Entry]) -> Mapping[str, Entry]:
    named: dict[str, Entry] = {}
    for entry in entries:
        if entry.name in named:
            raise _taken_twice(named[entry.name], entry)
        named[entry.name] = entry
    return dict(sorted(named.items()))


def _taken_twice(first: Entry, second: Entry) -> InputError:
    return InputError(
        f"the {first.kind} name '{first.name}' is taken twice: {first.file} and {second.file}",
        hint="rename one of the two; no entry overrides another",
        kind="duplicate_name",
    )


def catalog_of(folders: Folders) -> Catalog:
    """The catalogues, with one or several folders of the user's own."""
    return Catalog(folders_of(folders))


def folders_of(folders: Folders) -> tuple[Path, ...]:
    """One or several folders as paths."""
    return (Path(folders),) if isinstance(folders, str | Path) else tuple(Path(folder) for folder in folders)


def read_entries(kind: Kind, file: Path, *, is_its_own: bool, family: str = "") -> Iterator[Entry]:
    """Read the entries of a kind in a file.

    Args:
        kind: The kind.
        file: The file.
        is_its_own: Whether the file lies in the kind's own folder, rather than among files of all kinds.
        family: What the name of an entry that is a file begins with: the folder's, where one is inside, and ``/``.
    """
    try:
        yield from _entries_in(kind, file, read_text(file, what=f"{kind} file"), is_its_own, family)
    except (InputError, SyntaxError, ValueError, RecursionError, MemoryError) as error:  # nested without end, too
        raise InputError(
            f"the {kind} file {file} is broken: {error}",
            hint="mend the file, or move it out of the catalogue",
            kind="broken_catalog",
        ) from error


@lru_cache(maxsize=1024)
def _entries_in(kind: Kind, file: Path, text: str, is_its_own: bool, family: str) -> tuple[Entry, ...]:
    """What a file's text defines; parsed once, since a process makes many catalogues of the same files."""
    if KIND_SPECS[kind].card:
        return tuple(_python_entries(kind, file, text, is_its_own=is_its_own))
    return tuple(_toml_entries(kind, file, tomllib.loads(text), family))


def _toml_entries(kind: Kind, file: Path, table: Mapping[str, Any], family: str) -> Iterator[Entry]:
    """Give the card that a file is, or each of the ``cards`` that it lists, one a line."""
    if "cards" not in table:
        if not isinstance(table.get("title"), str):
            raise ValueError("it has no 'title'")
        yield Entry(kind, family + file.stem, file, table["title"], card=table)
        return
    for card in table["cards"] if isinstance(table["cards"], list) else [None]:
        if not isinstance(card, dict) or not all(isinstance(card.get(key), str) for key in ("name", "title")):
            raise ValueError("'cards' is no list of cards with a 'name' and a 'title' each")
        yield Entry(kind, card["name"], file, card["title"], card=card)


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
