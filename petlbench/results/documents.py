"""A result's document in little memory: parts are text until they are asked for, and what many share is kept once."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from sys import intern
from typing import Any

from petlbench.results.result import Result, read_result

KEYS = tuple(field.serialization_alias or name for name, field in Result.model_fields.items())
"""The keys of a document, in their order."""

# What grows with a run's length is read from its file, by whoever wants it.
_IN_FILE = ("curve", "calibration")
_MARK = "@"
# What the runs of a study have in common.
_SHARED = frozenset(
    {"environment", "data", "preprocessing", "digests", "inference", "origin", "artifacts", "parameters", "error"}
)
_NOTHING = ("null", "[]", "{}")


def _interned(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    return {intern(key): value for key, value in pairs}


# The keys of a document take as much as its values; all documents have the same.
_parse = json.JSONDecoder(object_pairs_hook=_interned).decode


class PackedDocument(Mapping[str, Any]):
    """What ``result.json`` holds, as `pack` has packed it.

    Args:
        content: The packed document.
        folder: Where the result lies.
        shared: Values by their text, of all documents that are read together.
    """

    __slots__ = ("_content", "_folder", "_shared", "_texts", "_values")

    def __init__(self, content: bytes, folder: Path, shared: dict[str, Any]) -> None:
        self._content = content
        self._folder = folder
        self._shared = shared
        self._texts: dict[str, str] = {}
        self._values: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        """A part of the document.

        Raises:
            KeyError: When documents have no such part.
            InputError: When it is to be read from a file that has gone or been damaged since.
        """
        if key not in self._values:
            self._unpack()
        if key not in self._values:
            text = self._texts.pop(key)
            if text == _MARK:
                document = self._read()
                self._values |= {name: document[name] for name in _IN_FILE}
            else:
                self._values[key] = _parse(text)
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        """The names of its parts."""
        return iter(KEYS)

    def __len__(self) -> int:
        """How many parts it has."""
        return len(KEYS)

    def __contains__(self, key: object) -> bool:
        """Whether it has a part of this name; nothing is unpacked for that."""
        return key in KEYS

    def _unpack(self) -> None:
        if not self._content:
            return
        content, self._content = self._content, b""
        with suppress(zlib.error, UnicodeDecodeError):
            texts = zlib.decompress(content).decode().split("\n")
            if len(texts) == len(KEYS):
                self._texts = dict(zip(KEYS, texts, strict=True))
                for key in _SHARED:
                    text = self._texts.pop(key)
                    if text not in self._shared:
                        self._shared[text] = _parse(text)
                    self._values[key] = self._shared[text]
                return
        self._values = self._read()

    def _read(self) -> dict[str, Any]:
        return read_result(self._folder).document()


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


def pack(document: Mapping[str, Any]) -> bytes:
    """Pack a document as `Result.document` gives it."""
    texts = {key: json.dumps(document[key], separators=(",", ":")) for key in KEYS}
    texts |= {key: _MARK for key in _IN_FILE if texts[key] not in _NOTHING}
    return zlib.compress("\n".join(texts.values()).encode(), 1)
