"""Weights of a backbone: from the hub, from a file, or none."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from petlbench.core.errors import InputError, PetlbenchError, RunError

__all__ = ["check_weights_file", "classifier_names", "load_weights", "without_network"]

_SHOWN = 5


def load_weights(module: nn.Module, name: str, weights: str) -> None:
    """Fill a timm model with weights.

    Args:
        module: The model, without its classifier.
        name: Its timm name with the weight tag.
        weights: ``default`` (timm's hub, or this package where they travel with it), ``none`` (leave the random
            ones), or a file: safetensors, or a checkpoint that torch reads with ``weights_only=True``.

    Raises:
        InputError: When the file is missing, unreadable or made for another model (lists what does not fit), or timm
            publishes no weights under this name.
        RunError: When the hub cannot be reached.
    """
    if weights in ("random", "none"):  # the second is what results of earlier versions say
        return
    state = _published(name) if weights == "default" else _from_file(Path(weights))
    origin = f"timm's weights for {name}" if weights == "default" else f"weights file {weights}"
    _fill(module, _converted(module, _unwrapped(state), origin), name, origin)


@contextmanager
def without_network() -> Iterator[None]:
    """Let the hub be asked nothing in the block; what was fetched from it before is found."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def classifier_names(module: nn.Module) -> tuple[str, ...]:
    """Names under which timm keeps a model's classifier; a distilled model has two."""
    names = cast("Any", module).pretrained_cfg.get("classifier") or "head"
    return (names,) if isinstance(names, str) else tuple(names)


def check_weights_file(file: Path) -> None:
    """Raise an InputError where a weights file is not there, before anything else is done."""
    if not file.is_file():
        raise InputError(
            f"weights file {file} does not exist",
            hint="give --weights a file, default (the hub) or none (random)",
            kind="no_weights",
        )


def _published(name: str) -> object:
    from timm.models import load_state_dict_from_hf

    cfg = timm.get_pretrained_cfg(name)
    if cfg is not None and cfg.file:  # they travel with the package
        return _from_file(Path(cfg.file))
    if cfg is None or not cfg.has_weights or not cfg.hf_hub_id:
        raise InputError(
            f"timm publishes no weights under the name '{name}'",
            hint="give --weights FILE, or --weights none for random ones",
            kind="no_weights",
        )
    # Without a file name timm takes "not reachable" for "no such file" and tries everything again under another name.
    file = cfg.hf_hub_filename or "model.safetensors"
    try:
        return cast("object", load_state_dict_from_hf(cfg.hf_hub_id, file, weights_only=True))
    except PetlbenchError:
        raise
    except Exception as error:  # the hub client raises many kinds, all of which mean the same to the user
        raise RunError(
            f"the weights of {name} could not be fetched from the hub ({cfg.hf_hub_id}): {type(error).__name__}",
            hint="without a network, give --weights FILE (a safetensors or .pth file of this model), "
            "--weights none for random ones, or --backbone petlbench_micro, whose weights are here",
            kind="weights_unavailable",
        ) from error


def _from_file(file: Path) -> object:
    check_weights_file(file)
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        return cast("object", torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:  # damaged files make torch's reader raise almost anything
        raise InputError(
            f"weights file {file} cannot be read: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            hint="give a safetensors file, or a .pth or .bin file that holds tensors alone",
            kind="bad_weights",
        ) from error


def _unwrapped(loaded: object) -> dict[str, Tensor]:
    """The tensors inside the wrappers that training scripts put around them; anything else holds none."""
    state: Mapping[Any, Any] = loaded if isinstance(loaded, Mapping) else {}
    for key in ("state_dict_ema", "model_ema", "state_dict", "model"):
        inner = state.get(key)
        if isinstance(inner, Mapping):
            state = inner
            break
    return {str(name).removeprefix("module."): value for name, value in state.items() if isinstance(value, Tensor)}


def _converted(module: nn.Module, state: dict[str, Tensor], origin: str) -> dict[str, Tensor]:
    """Weights in timm's present layout, the position table resized, without the classifier that is not used."""
    convert = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    try:
        converted = cast("dict[str, Tensor]", convert(state, module)) if convert else dict(state)
    except (KeyError, RuntimeError, ValueError, AttributeError, AssertionError) as error:
        raise InputError(
            f"{origin} was made for another model: {type(error).__name__}: {error}",
            hint="name the backbone that the file belongs to with --backbone",
            kind="bad_weights",
        ) from error
    heads = tuple(f"{name}." for name in (*classifier_names(module), "head", "head_dist"))
    own = module.state_dict()
    return {name: value for name, value in converted.items() if name in own or not name.startswith(heads)}


def _fill(module: nn.Module, state: dict[str, Tensor], name: str, origin: str) -> None:
    own = module.state_dict()
    problems = [f"missing {key}" for key in own if key not in state]
    problems += [f"unexpected {key}" for key in state if key not in own]
    for key, tensor in own.items():
        if (other := state.get(key, tensor)).shape != tensor.shape:
            problems.append(f"{key} is {tuple(other.shape)}, wanted {tuple(tensor.shape)}")
    if problems:
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise InputError(
            f"{origin} does not fit {name}: {'; '.join(problems[:_SHOWN])}{more}",
            hint="name the backbone that the file belongs to with --backbone",
            kind="bad_weights",
        )
    module.load_state_dict(state)
