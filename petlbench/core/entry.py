"""What stands in a catalogue: the kinds of things that have a name, their cards, and where their files are."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal, TypeVar, cast

import petlbench
from petlbench.core.errors import InputError

T = TypeVar("T")

Kind = Literal[
    "method",
    "dataset",
    "backbone",
    "sweep",
    "protocol",
    "recipe",
    "report",
    "metric",
    "reader",
    "task",
    "loss",
    "executor",
    "format",
    "report_kind",
]

_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class KindSpec:
    """Where entries of a kind stand, and what makes one.

    Args:
        folder: Folder in a catalogue of a user's.
        card: Name of the class whose instance names an entry; empty where an entry is a TOML file.
        package: Package of the shipped ones; empty for the folder of the same name at the top of the checkout.
        families: Whether its files may lie in folders inside, whose names their own begin with: ``vtab1k/cifar``.
    """

    folder: str
    card: str = ""
    package: str = ""
    families: bool = False

    @property
    def suffix(self) -> str:
        """What the names of its files end in."""
        return ".py" if self.card else ".toml"


KIND_SPECS: Mapping[Kind, KindSpec] = {
    "method": KindSpec("methods", "MethodCard"),
    "dataset": KindSpec("datasets", families=True),
    "backbone": KindSpec("backbones", package="models.backbones"),
    "sweep": KindSpec("sweeps"),
    "protocol": KindSpec("protocols", package="study.protocols"),
    "recipe": KindSpec("recipes", package="methods.recipes"),
    "report": KindSpec("reports"),
    "metric": KindSpec("metrics", "Metric", "metrics"),
    "reader": KindSpec("readers", "ReaderCard", "data.readers"),
    "task": KindSpec("tasks", "TaskType", "data.tasks"),
    "loss": KindSpec("losses", "Loss", "training.losses"),
    "executor": KindSpec("executors", "ExecutorCard", "study.executors"),
    "format": KindSpec("formats", "ReportFormat", "report.render"),
    "report_kind": KindSpec("report_kinds", "ReportKind", "report.kinds"),
}


@dataclass(frozen=True)
class Card:
    """What names an entry that is written in Python; each kind has a subclass of its own.

    Args:
        name: The name used on the command line.
        title: The name used in tables.
    """

    kind: ClassVar[Kind]

    name: str
    title: str


@dataclass(frozen=True)
class MethodCard(Card):
    """What is known of a method before its file is imported: written as literals in the class body.

    Args:
        name: The name used on the command line.
        title: The name used in tables.
        family: One of the field's families, for example ``"low-rank"`` or ``"side network"``.
        year: Year of publication.
        paper: Address of the paper (DOI or arXiv).
        summary: One sentence that says what is learned.
    """

    kind: ClassVar[Kind] = "method"

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
        attribute: What to take from a Python file.
        card: The card's fields as they stand in the file, so far as they are literals.
        value: What was registered from Python; None for what stands in a file.
    """

    kind: Kind
    name: str
    file: Path
    title: str
    attribute: str = ""
    card: Mapping[str, Any] = field(default_factory=dict, hash=False)
    value: Any = field(default=None, hash=False, compare=False)

    @property
    def shipped(self) -> bool:
        """Whether petlbench brought it, rather than the user."""
        return self.value is None and shipped_folder(self.kind) in self.file.parents

    def load(self, expected: type[T]) -> T:
        """Return what a Python file defines, imported.

        Args:
            expected: What it has to be an instance of or, where it is a class itself, a subclass of.

        Raises:
            InputError: When the file cannot be imported, or it is something else.
        """
        try:
            value = getattr(_import(self), self.attribute) if self.value is None else self.value
        except (Exception, SystemExit) as error:
            fault = f"{self.file} cannot be imported: {type(error).__name__}: {error}"
            raise InputError(f"{self.kind} '{self.name}': {fault}", kind="broken_catalog") from error
        if not (isinstance(value, expected) or (isinstance(value, type) and issubclass(value, expected))):
            module = "petlbench" if expected.__name__ in dir(petlbench) else expected.__module__
            fault = f"{self.attribute} in {self.file} is no {module}.{expected.__name__}"
            raise InputError(f"{self.kind} '{self.name}': {fault}", kind="broken_catalog")
        return cast("T", value)

    def digest(self) -> str:
        """SHA-256 of the code: of a file and the helpers (``_*.py``) beside it, or of what was registered."""
        if self.value is None:
            parts = [self.file, *sorted(path for path in self.file.parent.glob("_*.py") if path.name != "__init__.py")]
            text = "".join(hashlib.sha256(part.read_bytes()).hexdigest() for part in parts)
        else:
            text = _source_of(self.value)
        return hashlib.sha256(text.encode()).hexdigest()


def shipped_folder(kind: Kind) -> Path:
    """Find a shipped folder inside the package or, in a checkout, beside it."""
    spec = KIND_SPECS[kind]
    inside = _PACKAGE.joinpath(*spec.package.split(".")) if spec.package else _PACKAGE / spec.folder
    return (inside if inside.is_dir() else _PACKAGE.parent / spec.folder).resolve()


def _source_of(value: Any) -> str:
    try:
        return inspect.getsource(value if isinstance(value, type) else type(value))
    except (OSError, TypeError):  # written at a prompt: what it does is all that there is of it
        codes = [getattr(member, "__code__", None) for member in vars(value).values()]
        return repr([(code.co_code, code.co_consts, code.co_names) for code in codes if code is not None])


def _import(entry: Entry) -> ModuleType:
    if entry.shipped:
        kind = KIND_SPECS[entry.kind]
        return importlib.import_module(f"petlbench.{kind.package or kind.folder}.{entry.file.stem}")
    digest = hashlib.sha256(str(entry.file).encode()).hexdigest()[:12]
    name = f"_petlbench_catalog_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, entry.file)
    if spec is None or spec.loader is None:
        raise ImportError("no loader for this file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
