"""The catalogues: what has a name and is one file each, the shipped ones and a user's own alike.

A catalogue is read without importing what is in it: a TOML card is parsed, and the card of what is written in Python is
taken from the syntax tree of its file, so that listing costs milliseconds and needs no torch. In Python an entry is
either a class with ``card = MethodCard(name=..., title=...)`` in its body, or a constant that is a card itself, such as
``AUC = Metric(name="auc", title="AUC", ...)``; which kind it is, the card's class says.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from petlbench.core.entry import KIND_SPECS, Card, Entry, Kind, shipped_folder
from petlbench.core.entry_files import read_entries
from petlbench.core.errors import InputError, unknown_name

__all__ = ["Catalog", "Folder", "Folders", "catalog_of", "folders_of", "register"]

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
            folders += [Path(folder).resolve() for folder in spec.submodule_search_locations or ()]
        return folders

    def _read(self, kind: Kind) -> Iterator[Entry]:
        spec = KIND_SPECS[kind]
        for folder in self._sources(kind):
            for file in sorted(folder.glob("*" + spec.suffix)):
                if not file.name.startswith(("_", ".")):
                    yield from read_entries(kind, file.resolve(), is_its_own=folder.name == spec.folder)

    def _sources(self, kind: Kind) -> list[Path]:
        spec = KIND_SPECS[kind]
        sources = [shipped_folder(kind)]
        for folder in (*self.folders, *self._installed, _LOCAL.resolve()):
            sources.append(folder / spec.folder)
            if spec.card:
                sources.append(folder)
        return list(dict.fromkeys(source for source in sources if source.is_dir()))


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
