"""What was asked for before, told from times and sizes of files: without torch, and without reading an image."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import petlbench
from petlbench.core.catalog import Catalog, folders_of, is_registered
from petlbench.core.config import RunConfig
from petlbench.core.environment import default_data_root, package_versions, usable_cores
from petlbench.core.errors import InputError
from petlbench.core.files import write_atomically
from petlbench.core.user_files import Opened, read_json, stamp
from petlbench.results.folder import readable_result
from petlbench.results.result import Result

_FOLDER = ".asked"
_PACKAGE = Path(petlbench.__file__).parent
# Files that are listed one by one, because they lie in no folder of the dataset; more are not worth it.
_MOST_FILES = 20_000
# What is no answer to a question that was asked before: it asks for work.
_ANEW = ("rerun", "accept", "verify")


@dataclass(frozen=True)
class Recall:
    """What is kept of a question: its answer, and what every file was like that the answer depends on.

    An answer stands as long as the code, the packages, this machine and all of these files are the same.

    Args:
        question: All that was asked, as plain values.
        output: The folder of the results.
        data_root: The folder below which datasets lie.
        catalogs: Folders of the user's own catalogues.
    """

    question: Mapping[str, Any]
    output: Path
    data_root: Path
    catalogs: tuple[Path, ...]

    @classmethod
    def of(cls, question: Mapping[str, Any], options: Mapping[str, Any]) -> Self | None:
        """What is kept of a question as `petlbench.api` takes it; None where it is not in words, or asks for work."""
        if is_registered() or any(options.get(name) for name in _ANEW):
            return None
        try:
            options = {name: value for name, value in options.items() if value is not None}
            question = json.loads(json.dumps({**question, "options": options}, default=_plain, sort_keys=True))
        except (TypeError, ValueError):
            return None
        output, data_root = Path(options.get("output", "results")), Path(options.get("data_root", default_data_root()))
        return cls(question, output, data_root, folders_of(options.get("catalog", ())))

    def answer(self) -> dict[str, Any] | None:
        """What was kept as the answer; None where there is none, or anything that it depends on is not as it was."""
        if not self._file.exists():
            return None
        try:
            kept = read_json(self._file)
            folders, files, methods = (list(map(str, kept[name])) for name in ("folders", "files", "methods"))
            now = [self._code(methods), _machine(), _state(folders, files)]
            return dict(kept["answer"]) if now == [kept["code"], kept["machine"], kept["state"]] else None
        except (InputError, KeyError, TypeError, OSError, ValueError):
            return None

    def keep(self, answer: Mapping[str, Any], configs: Collection[RunConfig], opened: Opened) -> None:
        """Remember an answer with the files that were opened for it, unless one of them has changed since.

        Args:
            answer: Plain values.
            configs: The runs that it is made of.
            opened: The files.
        """
        with suppress(OSError):  # a file that has gone meanwhile and a full disk take nothing from what was asked for
            # Results are looked at one by one.
            opened = {
                file: before for file, before in opened.items() if not _is_in(Path(file), [self.output.absolute()])
            }
            folders, files = self._split(configs, opened)
            if len(files) > _MOST_FILES or any(stamp(file) != before for file, before in opened.items()):
                return
            methods = sorted({config.method for config in configs})
            kept = {
                "answer": answer,
                "methods": methods,
                "code": self._code(methods),
                "machine": _machine(),
                "folders": folders,
                "files": files,
                "state": _state(folders, files),
            }
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with write_atomically(self._file) as temporary:
                temporary.write_text(json.dumps(kept))

    def finished_result(self, run_id: str, digests: str) -> Result | None:
        """The finished result of a run; None where it is none, or depends on something else than these digests say."""
        result = readable_result(self.output, run_id)
        is_same = result is not None and result.status == "finished" and digest_of(result.digests) == digests
        return result if is_same else None

    @cached_property
    def _file(self) -> Path:
        return self.output / _FOLDER / f"{digest_of([self.question, os.getcwd()])[:32]}.json"

    def _code(self, methods: Iterable[str]) -> str:
        """The code that makes the numbers: the methods', petlbench's, and the versions of packages."""
        catalog = Catalog(self.catalogs)
        digests = [catalog.find("method", method).digest() for method in methods]
        engine = _state([], map(str, sorted(_PACKAGE.rglob("*.py"))))
        return digest_of([digests, engine, petlbench.__version__, package_versions()])

    def _split(self, configs: Iterable[RunConfig], opened: Opened) -> tuple[list[str], list[str]]:
        """The folders of the datasets and catalogues that count as a whole, and the opened files that lie elsewhere."""
        datasets = {name for config in configs for name in (config.dataset, config.test_on) if name}
        roots = [(self.data_root / name).resolve() for name in datasets if (self.data_root / name).is_dir()]
        named = {Path(name) for config in configs for name in (config.weights, config.backbone)}
        weights = [path for path in named if path.exists()]
        files = {file for file in opened if not _is_in(Path(file).parent, roots)}
        folders = {folder for root in roots for folder in _folders_in(root)}
        folders |= {path for path in (*_hub(), *self.catalogs, Path("petlbench_catalog"), *weights) if path.is_dir()}
        files |= {str(path) for path in weights if path.is_file()}
        return sorted(map(str, folders)), sorted(files)


class RunRecall(Recall):
    """What is kept of how a run was asked for: which run it was."""

    def result(self) -> Result | None:
        """The finished result; None where there is none, or anything that it depends on is not as it was."""
        answer = self.answer()
        return None if answer is None else self.finished_result(str(answer.get("run_id")), answer.get("digests", ""))

    def keep_result(self, result: Result, opened: Opened) -> None:
        """Remember a finished result with the files that were opened for it."""
        if result.status == "finished":
            self.keep({"run_id": result.run_id, "digests": digest_of(result.digests)}, [result.config], opened)


def digest_of(value: Any) -> str:
    """SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _folders_in(root: Path) -> Iterator[Path]:
    """A folder and all below it."""
    for base, _, _ in os.walk(root):
        yield Path(base)


def _hub() -> Iterable[Path]:
    """Where the hub's client notes which version of each model it has fetched."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE).glob("models--*/refs")


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is not in words")


def _machine() -> str:
    """What this process may compute on, as far as it can be seen without torch."""
    variables = {name: value for name, value in os.environ.items() if name.startswith(("PETLBENCH_", "CUDA_VISIBLE"))}
    return digest_of([usable_cores(), sorted(map(str, Path("/dev").glob("nvidia*"))), variables])


def _is_in(folder: Path, roots: Iterable[Path]) -> bool:
    return any(folder.is_relative_to(root) for root in roots)


def _state(folders: Iterable[str], files: Iterable[str]) -> str:
    """A digest of sizes and times: of everything in the folders, not of what is below it, and of the files."""
    digest = hashlib.sha256()
    for folder in folders:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                digest.update(f"{entry.path} {stamp(entry.path)}\n".encode(errors="surrogateescape"))
    for file in files:
        digest.update(f"{file} {stamp(file)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
