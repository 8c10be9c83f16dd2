"""Activation checkpointing: transformer blocks keep their input alone and are computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

_Factory = Callable[[], AbstractContextManager[object]]
_RECOMPUTE_UNDER: ContextVar[_Factory] = ContextVar("petlbench.recompute_under", default=nullcontext)


def checkpoint_blocks(module: nn.Module) -> None:
    """Checkpoint every transformer block of a module, in place.

    A block is whatever has an ``attn`` and an ``mlp``, in a backbone as in a side network; a module without any stays
    as it is. Parameters, their names and every result stay the same, dropout included. In evaluation, and where no
    gradients are wanted, a block runs as before.
    """
    for block in module.modules():
        if hasattr(block, "attn") and hasattr(block, "mlp"):
            kind: Any = type(block)
            block.__class__ = _checkpointed(kind)


def recomputed(function: Callable[..., Tensor], *args: Tensor) -> Tensor:
    """What a function returns, its arguments alone kept for the backward pass, where it is called again.

    Gradients are those of a plain call. The function draws no random numbers.
    """
    if not torch.is_grad_enabled():
        return function(*args)
    result: Tensor = checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False, context_fn=_contexts)
    return result


@contextmanager
def recompute_under(make: _Factory) -> Iterator[None]:
    """Have blocks that run forward in this context run under another one when they are computed again.

    Torch gives a computation in the backward pass the random state and the autocast of the forward pass, but takes the
    modes away that override torch's functions (``torch.overrides.TorchFunctionMode``). Whoever needs one there
    as well hands in here how it is made, anew for every block.

    Example:
        >>> with mode, recompute_under(lambda: mode):  # doctest: +SKIP
        ...     step(batch)
    """
    token = _RECOMPUTE_UNDER.set(make)
    try:
        yield
    finally:
        _RECOMPUTE_UNDER.reset(token)


class _Checkpointed(nn.Module):
    """Comes in front of a block's own class."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the block returns, nothing of it kept but what it read."""
        plain = super().forward
        if not (self.training and torch.is_grad_enabled()):
            return plain(*args, **kwargs)
        # Torch would stop behind the last tensor that backward needs. What one layer of a method keeps for a later one
        # in the same block would then never be fetched, and hold all that it was made from until the next step.
        with set_checkpoint_early_stop(False):
            return checkpoint(plain, *args, use_reentrant=False, context_fn=_contexts, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a block be copied and pickled: by its class's name, its own class would be found and not this one."""
        return _empty, (type(self).__mro__[2],), self.__dict__


@cache
def _checkpointed(kind: Any) -> Any:
    """The class of checkpointed blocks, derived from that of plain ones."""
    # A class rather than a function put on the block: it refers to no block, so copies of a block stay apart.
    return type(kind.__name__, (_Checkpointed, kind), {"__module__": kind.__module__})


def _empty(kind: Any) -> Any:
    """A checkpointed block without state, given the class of plain ones."""
    derived = _checkpointed(kind)
    return derived.__new__(derived)


def _contexts() -> tuple[AbstractContextManager[object], AbstractContextManager[object]]:
    """The contexts of the forward pass and of the computation in the backward pass, asked for in the forward pass."""
    return nullcontext(), _RECOMPUTE_UNDER.get()()
