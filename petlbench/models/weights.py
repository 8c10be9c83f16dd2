"""Weights of a backbone: published ones, those of a file or a folder, or none; they fit exactly or are refused."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import isqrt
from pathlib import Path
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

from petlbench.core.errors import InputError, PetlbenchError, RunError
from petlbench.models.card import BackboneCard, KeyRecipe
from petlbench.models.encoder import Encoder, take_encoder, unwrapped
from petlbench.models.layouts import LAYOUTS, State
from petlbench.models.unshown import check_stated, describe_unshown, stated_beside, unshown
from petlbench.models.weight_files import find_weights, read_weights

RANDOM = ("random", "none")  # the second is what results of earlier versions say
_SHOWN = 5
_FITS = "name the backbone that the file belongs to with --backbone"


@dataclass(frozen=True)
class Loaded:
    """What was loaded, in words, and in which arguments of timm's the file made the model another one."""

    words: str = ""
    differences: tuple[tuple[str, Any], ...] = ()


def load_weights(module: nn.Module, name: str, weights: str, card: BackboneCard | None = None) -> Loaded:
    """Fill a timm model with weights; all of it, or nothing.

    Args:
        module: The model, without its classifier.
        name: The backbone's name: timm's with the weight tag, or the card's.
        weights: ``default`` (those that timm publishes), ``none`` (leave the random ones), or a file or folder that
            `petlbench.models.weight_files.read_weights` reads.
        card: The backbone's card; None for one of timm's.

    Returns:
        What was loaded; no words for the published weights of a backbone of timm's.

    Raises:
        InputError: When the file is missing, unreadable or made for another model (lists what does not fit), or no
            weights are published under this name.
        RunError: When the hub cannot be reached.
    """
    if weights in RANDOM:
        return Loaded()
    if weights == "default":
        origin = f"timm's weights for {name}"
        state, _, _ = unwrapped(_published(name))
        _fill(module, _converted(module, state, origin), name, origin)
        return Loaded()
    file = find_weights(Path(weights))
    origin = f"weights file {file}"
    keys = card.keys if card is not None else KeyRecipe()
    encoder = take_encoder(read_weights(file), module, keys, origin)
    encoder, heads = _without_classifier(encoder, module)
    stated = stated_beside(file, against=card)
    differences = _follow(module, encoder, card, stated)
    notes = [_fit_positions(module, encoder.state)]
    _check_structure(module, encoder, name, origin)
    check_stated(module, name, file, stated)
    _fill(module, _converted(module, encoder.state, origin), name, origin)
    if heads:
        encoder = replace(encoder, left_out=tuple(dict.fromkeys((*encoder.left_out, *heads))))
    notes += [f"{key} is {value}, as {origin} has it" for key, value, origin in differences]
    if card is None:
        notes.append(_who_decides(module, name, encoder, stated))
    words = "; ".join([f"{file.name}: {encoder.describe()}", *filter(None, notes)])
    return Loaded(words, tuple((key, value) for key, value, _ in differences))


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


def _published(name: str) -> object:
    from timm.models import load_state_dict_from_hf

    cfg = timm.get_pretrained_cfg(name)
    if cfg is not None and cfg.file:  # they travel with the package
        return read_weights(Path(cfg.file))
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


def _without_classifier(encoder: Encoder, module: nn.Module) -> tuple[Encoder, list[str]]:
    """The encoder without what classifies, and the names of that."""
    names = dict.fromkeys((*classifier_names(module), "head", "head_dist", "fc", "classifier"))
    own = module.state_dict()
    heads = tuple(f"{name}." for name in names)
    kept = {key: tensor for key, tensor in encoder.state.items() if key in own or not key.startswith(heads)}
    left = [name for name in names if any(key.startswith(f"{name}.") for key in encoder.state if key not in kept)]
    return replace(encoder, state=kept), left


def _follow(
    module: nn.Module, encoder: Encoder, card: BackboneCard | None, stated: Mapping[str, Any]
) -> list[tuple[str, Any, str]]:
    """Change what a file decides and a name does not: norms behind the pooling, and what norms add to the variance.

    Returns:
        Each change under a card's name, its value, and whose it is.
    """
    model, state = cast("Any", module), encoder.state
    differences = list[tuple[str, Any, str]]()
    has_both = all(isinstance(getattr(model, name, None), nn.Module) for name in ("norm", "fc_norm"))
    if has_both and "fc_norm.weight" in state and "norm.weight" not in state and isinstance(model.fc_norm, nn.Identity):
        model.fc_norm, model.norm, model.global_pool = model.norm, nn.Identity(), "avg"
        differences.append(("global_pool", "avg", "the file"))
    layout = LAYOUTS[encoder.layout]
    eps = stated.get("norm_eps", layout.norm_eps)
    is_stated = card is not None and card.architecture.norm_eps is not None
    if not is_stated and eps is not None and unshown(module).get("norm_eps", eps) != eps:
        for layer in module.modules():
            if isinstance(layer, nn.LayerNorm):
                layer.eps = eps
        differences.append(("norm_eps", eps, "the configuration beside it" if stated else layout.title))
    return differences


def _who_decides(module: nn.Module, name: str, encoder: Encoder, stated: Mapping[str, Any]) -> str:
    """Where heads and activation of a model under a name of timm's come from, in words."""
    if stated:
        return "heads and activation as the configuration beside it says"
    return describe_unshown(module, name, but=("num_heads",) if encoder.heads else ())


def _check_structure(module: nn.Module, encoder: Encoder, name: str, origin: str) -> None:
    """Refuse another patch, width, depth or number of heads in words: timm would resample a patch and say nothing."""
    own, state = module.state_dict(), encoder.state
    ours, theirs = own.get("patch_embed.proj.weight"), state.get("patch_embed.proj.weight")
    faults = []
    if ours is not None and theirs is not None and ours.dim() == theirs.dim() == 4:
        if ours.shape[2:] != theirs.shape[2:]:
            faults.append(f"a patch of {_by(theirs.shape[2:])} pixels, for {_by(ours.shape[2:])}")
        if len(ours) != len(theirs):
            faults.append(f"tokens of {len(theirs)} channels, for {len(ours)}")
    blocks = Encoder(own, "timm").blocks
    if theirs is not None and blocks and encoder.blocks > blocks:
        faults.append(f"{encoder.blocks} blocks, for {blocks}")
    heads = unshown(module).get("num_heads", 0)
    if encoder.heads and heads and encoder.heads != heads:
        faults.append(f"{encoder.heads} attention heads, for {heads}")
    if faults:
        raise InputError(
            f"{origin} does not fit {name}: it has {', and '.join(faults)}; nothing of that is resampled",
            hint=f"{_FITS}; a backbone of another structure takes a card, see docs/backbones.md",
            kind="bad_weights",
        )


def _by(shape: torch.Size) -> str:
    return " x ".join(map(str, shape))


def _fit_positions(module: nn.Module, state: State) -> str:
    """Give register tokens and class token their places in the position table; say whether it will be resized."""
    model, table = cast("Any", module), state.get("pos_embed")
    embedding = getattr(model, "patch_embed", None)
    if table is None or table.dim() != 3 or getattr(model, "pos_embed", None) is None or embedding is None:
        return ""
    prefix = 0 if getattr(model, "no_embed_class", False) else getattr(model, "num_prefix_tokens", 1)
    registers, grid = getattr(model, "num_reg_tokens", 0), isqrt(table.shape[1] - 1)
    if registers and prefix != 1 and grid**2 == table.shape[1] - 1 and {"cls_token", "reg_token"} <= set(state):
        if model.no_embed_class:
            state["cls_token"], state["pos_embed"] = state["cls_token"] + table[:, :1], table[:, 1:]
        else:  # a register's token is what it is without a position
            nothing = torch.zeros_like(table[:, :1]).expand(-1, registers, -1)
            state["pos_embed"] = torch.cat([table[:, :1], nothing, table[:, 1:]], dim=1)
    else:
        grid = isqrt(max(table.shape[1] - prefix, 0))
    side = embedding.grid_size[0]
    return f"position table resized from {grid} x {grid} to {side} x {side}" if grid and grid != side else ""


def _converted(module: nn.Module, state: State, origin: str) -> State:
    """Weights in timm's present layout, the position table resized, without the classifier that is not used."""
    convert = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    try:
        converted = cast("dict[str, Tensor]", convert(state, module)) if convert else dict(state)
    except (KeyError, RuntimeError, ValueError, AttributeError, AssertionError) as error:
        raise InputError(
            f"{origin} was made for another model: {type(error).__name__}: {error}", hint=_FITS, kind="bad_weights"
        ) from error
    heads = tuple(f"{name}." for name in (*classifier_names(module), "head", "head_dist"))
    own = module.state_dict()
    return {name: value for name, value in converted.items() if name in own or not name.startswith(heads)}


def _fill(module: nn.Module, state: State, name: str, origin: str) -> None:
    own = module.state_dict()
    problems = [f"missing {key}" for key in own if key not in state]
    problems += [f"unexpected {key}" for key in state if key not in own]
    for key, tensor in own.items():
        if (other := state.get(key, tensor)).shape != tensor.shape:
            problems.append(f"{key} is {tuple(other.shape)}, wanted {tuple(tensor.shape)}")
    if problems:
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise InputError(
            f"{origin} does not fit {name}: {'; '.join(problems[:_SHOWN])}{more}", hint=_FITS, kind="bad_weights"
        )
    module.load_state_dict(state)
