"""What no tensor shows of a model: its heads, its activation, and what its norms add to the variance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from petlbench.core.errors import InputError
from petlbench.models.card import BackboneCard
from petlbench.models.folder_card import CONFIGS, card_of_folder

_KEYS = ("num_heads", "act_layer", "norm_eps")
# The classes of activations, torch's and timm's, as a card calls them.
_ACTIVATIONS = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu", "SiLU": "silu", "ReLU": "relu"}


def unshown(module: nn.Module) -> dict[str, Any]:
    """What no tensor shows of a model, under a card's names; what it has none of is left out."""
    layers = list(module.modules())
    heads = [layer.num_heads for layer in layers if hasattr(layer, "num_heads")]
    activations = [name for layer in layers if (name := _ACTIVATIONS.get(type(layer).__name__))]
    epsilons = [layer.eps for layer in layers if isinstance(layer, nn.LayerNorm)]
    columns: tuple[list[Any], ...] = (heads, activations, epsilons)
    return {key: values[0] for key, values in zip(_KEYS, columns, strict=True) if values}


def stated_beside(file: Path, *, against: BackboneCard | None) -> dict[str, Any]:
    """What a configuration beside a weights file says of the same; nothing where there is none of a model timm has.

    Args:
        file: The file of weights.
        against: The card that it is held against; None for a name of timm's. What a configuration leaves to the name of
            an architecture says nothing against a card, which may have to put it right.

    Raises:
        InputError: When there is one, and it is damaged.
    """
    if not any((file.parent / name).is_file() for name in CONFIGS):
        return {}
    try:
        stated = card_of_folder(file.parent, str(file.parent))
        if against is not None:
            return {key: value for key, value in stated.architecture.differences.items() if key in _KEYS}
        with torch.device("meta"):
            return unshown(timm.create_model(stated.timm, num_classes=0, **stated.architecture.arguments()))
    except InputError as error:
        if error.kind in ("unsupported_backbone", "bad_card"):  # another kind of model, or of file
            return {}
        raise
    except (TypeError, AssertionError, ValueError, RuntimeError):  # timm makes no such model
        return {}


def check_stated(module: nn.Module, name: str, file: Path, stated: dict[str, Any]) -> None:
    """Refuse a model that is not what the configuration beside its weights says.

    Args:
        module: The model.
        name: What the backbone is called.
        file: The file of weights.
        stated: What `stated_beside` gives.

    Raises:
        InputError: When a value is another one.
    """
    own = unshown(module)
    faults = [f"{key} {value}, for {own[key]}" for key, value in stated.items() if own.get(key, value) != value]
    if faults:
        raise InputError(
            f"weights file {file} does not fit {name}: the configuration beside it says {', '.join(faults)}",
            hint=f"name the folder, --backbone {file.parent}, or a card that says the same (docs/backbones.md)",
            kind="bad_weights",
        )


def describe_unshown(module: nn.Module, name: str, *, but: tuple[str, ...] = ()) -> str:
    """What no tensor of a bare file shows and its backbone's name decides, in words.

    Args:
        module: The model.
        name: The backbone's name.
        but: What a tensor shows after all.
    """
    words = {"num_heads": "heads", "act_layer": "activation"}
    own = unshown(module)
    parts = [f"{word} ({own[key]})" for key, word in words.items() if key in own and key not in but]
    return f"{' and '.join(parts)} as {name} has them: no tensor shows that" if parts else ""
