"""The trained module through ``torch.compile``, where a run wants that: in place, so that no name changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from petlbench.core.config import RunConfig
from petlbench.core.errors import InputError, RunError
from petlbench.memory.out_of_memory import is_shortage
from petlbench.models.method import Adapted, Inputs
from petlbench.models.precision import autocast

# Dropout is drawn as the module as it is written draws it.
_OPTIONS: dict[str, str | int | bool | object] = {"fallback_random": True}
# Each size of a batch is compiled by its own. What serves several would be taken for a size or not by what came before,
# and a training that goes on from a checkpoint would have other last bits.
_DYNAMIC = False


def check_compiler(config: RunConfig) -> None:
    """Compile next to nothing where a run is to be compiled.

    Raises:
        InputError: When this machine cannot (kind ``no_compiler``).
    """
    if not config.compile:
        return
    try:
        torch.compile(_next_to_nothing)(torch.ones(2, device=config.device))
    except Exception as error:  # torch's own kinds are many, and none of them is documented
        raise InputError(
            f"--compile: torch.compile cannot compile for {config.device} here: {_reason(error)}",
            hint="install a C++ compiler (g++) and Python's headers, or leave --compile out",
            kind="no_compiler",
        ) from error


def compile_module(adapted: Adapted, inputs: Inputs, config: RunConfig) -> None:
    """Compile what is trained, for training and for evaluation.

    Parameters and buffers keep names and values, and nothing is drawn from torch's generators.

    Args:
        adapted: The module and what it learns, on the device.
        inputs: As many images as pass through the module at once in training.
        config: The run.

    Raises:
        RunError: When torch cannot compile it (kind ``cannot_compile``).
    """
    # What a process has compiled for earlier runs counts against a limit, and may have been made for other shapes.
    torch.compiler.reset()
    device = next(adapted.module.parameters()).device
    adapted.module.compile(dynamic=_DYNAMIC, options=_OPTIONS)
    try:
        with _nothing_changed(adapted.module, device), autocast(device, config.precision):
            _run_once(adapted, inputs)
    except Exception as error:
        if is_shortage(error):
            raise
        raise RunError(
            f"--compile: torch.compile cannot compile {config.method} on {config.backbone}: {_reason(error)}",
            hint="leave --compile out",
            kind="cannot_compile",
        ) from error


def as_written(config: RunConfig) -> AbstractContextManager[object]:
    """The context in which a module that was compiled runs as it is written."""
    return torch.compiler.set_stance("force_eager") if config.compile else nullcontext()


def _next_to_nothing(tensor: Tensor) -> Tensor:
    return tensor.sin() + 1


def _run_once(adapted: Adapted, inputs: Inputs) -> None:
    """A pass forward and back as training has it, and one as evaluation has it: each is compiled by its own."""
    with torch.enable_grad():
        logits = adapted.module.train()(inputs)
        torch.autograd.grad(logits.float().sum(), [*adapted.parameters().values()], allow_unused=True)
    with torch.no_grad():
        adapted.module.eval()(inputs)


@contextmanager
def _nothing_changed(module: nn.Module, device: torch.device) -> Iterator[None]:
    """While entered, buffers may change and numbers be drawn; behind it, all is as before."""
    kept = {name: buffer.clone() for name, buffer in module.named_buffers()}
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                buffer.copy_(kept[name])


def _reason(error: Exception) -> str:
    """The first line of what lies behind an error of torch's compiler."""
    inner = getattr(error, "inner_exception", error)
    return f"{type(inner).__name__}: {str(inner).strip().partition(chr(10))[0]}"
