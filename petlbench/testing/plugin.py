"""The plug-in of pytest that puts a user's files through a contract, without a test file of the user's.

pytest imports this module in every session of an environment that has petlbench: it adds options and no more, until one
of them is used.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from petlbench.core.entry import Entry

_KINDS = ("method", "reader", "metric")
_ENTRIES = pytest.StashKey[dict[Path, list[Any]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("petlbench", "petlbench: contracts of methods, readers and metrics")
    options = {
        kind: ("FILE", f"put each {kind} of a Python file, or one of a catalogue by its name, through the contract")
        for kind in _KINDS
    }
    options["catalog"] = ("DIR", "a catalogue of names")
    options["backbone"] = ("NAME@SIZE", "a backbone and an image size in pixels, instead of the usual two")
    for name, (metavar, text) in options.items():
        group.addoption(f"--petlbench-{name}", action="append", default=[], metavar=metavar, help=text)
    group.addoption("--petlbench-data", metavar="PATH", help="what a reader reads, instead of a small sample")


def pytest_configure(config: pytest.Config) -> None:
    """Collect the files that the options name; alone, unless tests are named beside them."""
    references = [(kind, name) for kind in _KINDS for name in config.getoption(f"--petlbench-{kind}")]
    if not references:
        return
    from petlbench.core.errors import InputError

    try:
        entries = [entry for kind, name in references for entry in _entries(config, kind, name)]
    except InputError as error:
        raise pytest.UsageError(f"{error.message}\n{error.hint}") from error
    by_file: dict[Path, list[Entry]] = {}
    for entry in entries:
        by_file.setdefault(entry.file, []).append(entry)
    config.stash[_ENTRIES] = by_file
    others = config.args if config.args_source == pytest.Config.ArgsSource.ARGS else []
    config.args = [*others, *map(str, by_file)]


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makemodule(module_path: Path, parent: Any) -> pytest.Module | None:
    """Collect the contracts of what stands in a file that an option names."""
    if module_path not in parent.config.stash.get(_ENTRIES, {}):
        return None
    module: pytest.Module = _Contracts.from_parent(parent, path=module_path)
    return module


class _Contracts(pytest.Module):
    def collect(self) -> list[pytest.Item | pytest.Collector]:
        from petlbench.core.errors import InputError

        self.obj = ModuleType(self.path.stem)
        entries = self.config.stash[_ENTRIES][self.path]
        try:
            for entry in entries:
                setattr(self.obj, entry.attribute, _contract(entry, self.config))
        except InputError as error:
            raise self.CollectError(f"{error.message}\n{error.hint}".strip()) from error
        return [pytest.Class.from_parent(self, name=entry.attribute) for entry in entries]


def _entries(config: pytest.Config, kind: Any, reference: str) -> list[Entry]:
    """Every entry of a kind in a file, or the entry of a catalogue that has the name."""
    from petlbench.core.catalog import Catalog, read_entries

    folder = config.invocation_params.dir
    file = (folder / reference).resolve()
    if reference.endswith(".py") or file.is_file():
        return list(read_entries(kind, file, is_its_own=True))
    return [Catalog([folder / name for name in config.getoption("--petlbench-catalog")]).find(kind, reference)]


def _contract(entry: Entry, config: pytest.Config) -> type:
    """The tests of one entry: the contract of its kind, with what the options say."""
    from petlbench import testing

    contract = getattr(testing, f"{entry.kind.title()}Contract")
    attributes: dict[str, Any] = {entry.kind: entry.load(object)}
    sizes = [name.rpartition("@") for name in config.getoption("--petlbench-backbone")]
    if sizes:
        attributes["backbones"] = {name: int(size) for name, _, size in sizes}
    if path := config.getoption("--petlbench-data"):
        attributes["path"] = config.invocation_params.dir / path
    return type(entry.attribute, (contract,), attributes)
