"""A result's document in little memory: what many have in common is kept once, and of the rest little but numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from operator import add
from pathlib import Path
from typing import Any

from pydantic_core import from_json, to_json

from petlbench.results.result import Result, read_result

KEYS = tuple(field.serialization_alias or name for name, field in Result.model_fields.items())
"""The keys of a document, in their order."""

# What grows with a run's length is read from its file, by whoever wants it.
_IN_FILE = ("curve", "calibration")
_NOTHING = ("null", "[]", "{}")
# Parts that are other ones in every run: they stand as they are.
_SINGLE = frozenset(("run_id", "metrics", "metrics_by_group", "scores", "timing"))
# What the repeats of a run differ in, by part: all else of the part is one text for many runs.
_OWN = {"config": ("seed", "split_seed", "draw"), "digests": ("learned",)}
# Parts that are one text for many runs but for their numbers.
_MEASURED = frozenset(("intervals", "intervals_by_group", "memory", "inference"))
# With the character in front, by which it is told from digits in texts, and is found in half the time.
_NUMBER = re.compile(r"([:,\[])(-?\d[-+.\deE]*)(?=[,\]}])")


# Of a part: the number of its text, and the line of what is its own, or of neither.
_NONE = -1
_Head = Mapping[str, tuple[int, int]]


class SharedTexts:
    """What documents that are read together have in common: texts by their numbers, each parsed once.

    Args:
        texts: The texts.
    """

    def __init__(self, texts: Mapping[int, str]) -> None:
        self._texts = texts
        self._values: dict[int, Any] = {}
        self._heads: dict[str, _Head] = {}
        self.latest: tuple[PackedDocument | None, dict[str, Any]] = (None, {})
        """The document that was read last, and its parts: who reads one part of it most often reads others, too."""

    def text(self, number: int) -> str:
        """A text."""
        return self._texts[number]

    def value(self, number: int) -> Any:
        """What a text says, as JSON; the same object each time."""
        if number not in self._values:
            self._values[number] = from_json(self._texts[number])
        return self._values[number]

    def head(self, text: str) -> _Head:
        """Where the parts of a document are, which for repeats of a run is the same object."""
        if text not in self._heads:
            numbers = [tuple(map(int, part.split(":"))) for part in text.split(" ")]
            self._heads[text] = dict(zip(KEYS, numbers, strict=True))  # type: ignore[arg-type]
        return self._heads[text]


class PackedDocument(Mapping[str, Any]):
    """What ``result.json`` holds, as `pack` has packed it.

    Args:
        content: The packed document.
        folder: Where the result lies.
        shared: The texts that it refers to.
    """

    __slots__ = ("_config", "_folder", "_head", "_own", "_read", "_shared")

    def __init__(self, content: str, folder: Path, shared: SharedTexts) -> None:
        self._folder = folder
        self._shared = shared
        self._config: Any = None
        self._read: Mapping[str, Any] = {}
        try:
            head, _, self._own = content.partition("\n")
            self._head = shared.head(head)
        except _DAMAGED:
            self._head, self._read = {}, read_result(folder).document()

    @property
    def common_config(self) -> Mapping[str, Any]:
        """What its config has in common with those of its repeats: the same object in all of them."""
        config: Mapping[str, Any] = self["config"] if self._read else self._shared.value(self._head["config"][0])
        return config

    def __getitem__(self, key: str) -> Any:
        """A part of the document.

        Raises:
            KeyError: When documents have no such part.
            InputError: When it is to be read from a file that has gone or been damaged since.
        """
        if key in self._read:
            return self._read[key]
        number, line = self._head[key]
        if line == _NONE:
            return self._in_file(key) if number == _NONE else self._shared.value(number)
        if key == "config":  # it is asked for again and again
            self._config = self._part(key, number, line) if self._config is None else self._config
            return self._config
        latest, parts = self._shared.latest
        if latest is not self:
            parts = {}
            self._shared.latest = (self, parts)
        if key not in parts:
            parts[key] = self._part(key, number, line)
        return parts[key]

    def __iter__(self) -> Iterator[str]:
        """The names of its parts."""
        return iter(KEYS)

    def __len__(self) -> int:
        """How many parts it has."""
        return len(KEYS)

    def __contains__(self, key: object) -> bool:
        """Whether it has a part of this name; nothing is unpacked for that."""
        return key in KEYS

    def _part(self, key: str, number: int, line: int) -> Any:
        own = self._own.split("\n")[line]
        if key in _MEASURED:
            return from_json(self._shared.text(number) % tuple(own.split(" ")))
        if number == _NONE:
            return from_json(own)
        return {**self._shared.value(number), **dict(zip(_OWN[key], from_json(own), strict=True))}

    def _in_file(self, key: str) -> Any:
        document = read_result(self._folder).document()
        self._read = {name: document[name] for name in _IN_FILE}
        return document[key]


# What is raised where the content is not what `pack` made.
_DAMAGED = (ValueError, TypeError)


class _Changed(Mapping[str, Any]):
    """A document with other parts in the place of its own."""

    __slots__ = ("_document", "_parts")

    def __init__(self, document: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
        self._document = document
        self._parts = parts

    def __getitem__(self, key: str) -> Any:
        return self._parts[key] if key in self._parts else self._document[key]

    def __iter__(self) -> Iterator[str]:
        yield from self._document
        yield from (key for key in self._parts if key not in self._document)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, key: object) -> bool:
        return key in self._parts or key in self._document


def changed(document: Mapping[str, Any], **parts: Any) -> Mapping[str, Any]:
    """A document with other parts in the place of its own; none of the rest is unpacked or copied."""
    return _Changed(document, parts)


def pack(document: Mapping[str, Any], number_of: Callable[[str], int]) -> str:
    """Pack a document as `Result.document` gives it.

    Args:
        document: The document.
        number_of: Keeps a text that many documents have in common, and gives its number.
    """
    head: list[str] = []
    lines: list[str] = []
    for key in KEYS:
        text, own = _cut(key, document[key])
        head.append(f"{_NONE if text is None else number_of(text)}:{_NONE if own is None else len(lines)}")
        lines.extend([] if own is None else [own])
    return "\n".join([" ".join(head), *lines])


def _cut(key: str, value: Any) -> tuple[str | None, str | None]:
    """What a part has in common with those of others, and what is its own; neither of what its file alone has."""
    if key in _OWN and all(name in value for name in _OWN[key]):
        return _text({**value, **dict.fromkeys(_OWN[key])}), _text([value[name] for name in _OWN[key]])
    text = _text(value)
    if key in _SINGLE:
        return None, text
    if key in _IN_FILE and text not in _NOTHING:
        return None, None
    pieces = _NUMBER.split(text.replace("%", "%%")) if key in _MEASURED else [text]
    if len(pieces) == 1:
        return text, None
    return "%s".join(map(add, pieces[::3], [*pieces[1::3], ""])), " ".join(pieces[2::3])


def _text(value: Any) -> str:
    return to_json(value).decode()
