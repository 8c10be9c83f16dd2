"""The exponential moving average of what is learned, which is evaluated and kept in its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["MovingAverage"]


class MovingAverage:
    """Keeps ``average = decay * average + (1 - decay) * parameter`` of every learnable parameter.

    Args:
        parameters: The learnable parameters by name.
        decay: Below 1; 0 for no average, where everything here does nothing.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self._parameters = dict(parameters)
        self.tensors = {name: tensor.detach().clone() for name, tensor in parameters.items()} if decay else {}

    def update(self) -> None:
        """Take in the parameters after a step."""
        if self.tensors:
            parameters = [self._parameters[name].detach() for name in self.tensors]
            torch._foreach_lerp_([*self.tensors.values()], parameters, 1 - self.decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average in the parameters' place while the block runs."""
        with torch.no_grad():
            self._swap()
            try:
                yield
            finally:
                self._swap()

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what ``tensors`` held."""
        for name, tensor in tensors.items():
            self.tensors[name].copy_(tensor)

    def _swap(self) -> None:
        for name, average in self.tensors.items():
            parameter = self._parameters[name]
            average.data, parameter.data = parameter.data, average.data
