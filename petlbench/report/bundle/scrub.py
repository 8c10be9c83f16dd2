"""Documents that are handed on: without passwords, and without the folders of the machine that they are from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from petlbench.core.text import without_password
from petlbench.results.stored import Stored, dataset_names, flat

# What a path ends before, where it stands in a sentence.
_WORD = r"[^\s'\"`,;:()\[\]<>]"
_PATHS = re.compile(
    rf"(?<![\w.:/~\\*)\]-])(?:file://)?(?:~[\w.-]*)?/(?=[^\s/]){_WORD}+"  # from the root, from a home folder
    rf"|(?<![\w])[A-Za-z]:[\\/]{_WORD}+|(?<![\w\\])\\\\{_WORD}+"  # of a drive, of a server
)
_ELSEWHERE = re.compile(r"(?:/|~|\.\.(?:[\\/]|$)|[A-Za-z]:[\\/]|\\\\|file:)")
_USER = re.compile(r"(?<=://)[^\s/@]*@")
_PARTS = re.compile(r"[\\/]")
_PRIVATE = re.compile(r"/home/|/Users/|/root/|\\Users\\")


def is_elsewhere(text: str) -> bool:
    """Whether a text is a path that tells of the machine: one from its root, from a home folder, or upwards."""
    return _ELSEWHERE.match(text) is not None


@dataclass(frozen=True)
class Scrubber:
    """What takes folders and passwords out of texts.

    Args:
        names: What stands for each path that is known, spaces in it included; for others it is their last part.
        private: Texts that must not be left anywhere.
    """

    names: Mapping[str, str]
    private: tuple[str, ...] = ()

    @classmethod
    def of(cls, runs: Iterable[Stored], studies: Iterable[Mapping[str, Any]], output: Path) -> Scrubber:
        """One that knows the datasets, weights and folders of runs; datasets that differ keep names that differ."""
        configs = [run.config for run in runs]
        datasets = [str(config["dataset"]) for config in configs]
        datasets += [str(name) for study in studies for name in study.get("datasets", ())]
        texts = [each for config in configs for each in flat(config).values() if isinstance(each, str)]
        folders = [str(folder) for folder in (Path.home(), Path.cwd(), output.absolute()) if len(folder.parts) > 1]
        paths = {text for text in texts if is_elsewhere(text)}
        above = {
            str(parent) for path in (*paths, *folders) for parent in PurePath(path).parents if len(parent.parts) > 1
        }
        names = {f"{folder}/": "" for folder in (*folders, *above)} | dict.fromkeys(folders, ".")
        names |= {path: _last_part(path) for path in paths}
        names |= {path: name for path, name in dataset_names(datasets).items() if is_elsewhere(path)}
        return cls(dict(sorted(names.items(), key=lambda item: -len(item[0]))), tuple(folders))

    def text(self, text: str) -> str:
        """The text without folders and passwords."""
        for path, name in self.names.items():
            text = text.replace(path, name)
        return _PATHS.sub(lambda match: _last_part(match[0]), _USER.sub("", without_password(text)))

    def value(self, value: Any) -> Any:
        """Plain values, nested as they may be, with every text scrubbed, keys too."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.value(each) for key, each in value.items()}
        return [self.value(each) for each in value] if isinstance(value, list | tuple) else value

    def private_part(self, text: str) -> str:
        """The first thing of a text that should not be handed on; empty where there is none."""
        match = _PRIVATE.search(text)
        return match[0] if match else next((folder for folder in self.private if folder in text), "")


def _last_part(path: str) -> str:
    return _PARTS.split(path.rstrip("/\\"))[-1] or "."
