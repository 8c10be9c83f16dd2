"""Copies of a module, one a run: all but its tensors is written down once, and not walked through for each copy."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any, cast

from torch import Tensor, nn


class Original:
    """A module that nobody touches, of which copies are made as `copy.deepcopy` makes them, in less time.

    Args:
        module: The module; what cannot be pickled, such as a function inside another or a parametrized module, makes
            its copies deep ones.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._tensors: list[Tensor] = []
        stream = io.BytesIO()
        try:
            _Writer(stream, self._tensors).dump(module)
        except (pickle.PicklingError, TypeError, AttributeError, RuntimeError):
            stream = io.BytesIO()
        self._structure = stream.getvalue()

    def copy(self) -> nn.Module:
        """A copy that shares nothing with the module that could be changed."""
        if not self._structure:
            return copy.deepcopy(self._module)
        return cast("nn.Module", _Reader(io.BytesIO(self._structure), self._tensors).load())


class _Writer(pickle.Pickler):
    def __init__(self, stream: io.BytesIO, tensors: list[Tensor]) -> None:
        super().__init__(stream, pickle.HIGHEST_PROTOCOL)
        self._tensors = tensors

    def persistent_id(self, value: Any) -> int | None:
        """The place of a tensor among those that stay outside."""
        if not isinstance(value, Tensor):
            return None
        self._tensors.append(value)
        return len(self._tensors) - 1


class _Reader(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, tensors: list[Tensor]) -> None:
        super().__init__(stream)
        self._tensors = tensors
        self._copied: dict[int, Any] = {}

    def persistent_load(self, place: int) -> Any:
        """A copy of the tensor of a place; one that stood in several is one again."""
        return copy.deepcopy(self._tensors[place], self._copied)
