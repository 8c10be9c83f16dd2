"""timm's vision transformers by name: probed for their structure, built and given their weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import timm
import torch
from timm.models import PretrainedCfg, is_model_in_modules
from torch import Tensor, nn

from petlbench.core.catalog import Catalog
from petlbench.core.entry import Entry
from petlbench.core.errors import InputError, unknown_name
from petlbench.core.request import DEFAULT_BACKBONE
from petlbench.core.user_files import user_path
from petlbench.models import micro  # noqa: F401 - tells timm of it
from petlbench.models.backbone import Backbone, freeze_statistics
from petlbench.models.card import Architecture, BackboneCard, checked_card, load_backbone_card
from petlbench.models.folder_card import card_of_folder
from petlbench.models.hub import card_of_repository, fetch_weights
from petlbench.models.info import BackboneInfo
from petlbench.models.structure import describe_module, not_adaptable

_HUB = "hf-hub:"


# timm's modules whose models are, for the most part, vision transformers that can be adapted.
_MODULES = ("vision_transformer", "deit", "beit", "eva", "swin_transformer", "micro")
# And those of convolutional networks, for a table's baseline.
_CONVOLUTIONAL = ("convnext", "resnet", "efficientnet")
# And those whose models can be made without drawing the values that they start with.
_UNDRAWN = ("vision_transformer", "deit", "micro")


def resolve_backbone(name: str, catalog: Catalog | None = None) -> str:
    """What a config calls a backbone, so that it says which weights it means; nothing is fetched for that.

    Args:
        name: One of timm's names, a card's, ``hf-hub:ORGANISATION/NAME`` perhaps with ``@REVISION``, or the path of a
            card or of a folder as ``save_pretrained`` writes it.
        catalog: The catalogues in which cards stand; None for those that need no ``--catalog``.

    Returns:
        ``architecture.tag`` for one of timm's, or the bare architecture where timm has no tag for it; a card's name;
        ``hf-hub:ORGANISATION/NAME``; or an absolute path.

    Raises:
        InputError: When there is no such backbone; the nearest names are given.
    """
    repository = _repository(name)
    plain = (repository or name).removeprefix("timm/")
    if timm.is_model(plain.partition(".")[0]) and (repository is None or repository.startswith("timm/")):
        _check_not_shadowed(plain, catalog)
        return _with_tag(plain)
    cards = (catalog or Catalog()).entries("backbone")
    if repository is not None:
        return next((entry.name for entry in cards.values() if _is_of(entry, repository)), f"hf-hub:{repository}")
    if name in cards:
        return name
    if (path := _local(name)) is not None:
        return str(path)
    names = [*timm.list_models(), *cards]
    hint = "petlbench list backbones shows the cards; any vision transformer of timm's can be named, too"
    if name.startswith("local-dir:") or name.endswith(".toml"):
        hint, names = f"there is no such folder or card; {hint}", []
    elif re.fullmatch(r"\w[\w.-]*/[\w.-]+", name):
        hint, names = f"for a repository on the hub write hf-hub:{name}", []
    raise unknown_name("backbone", name, names, hint=hint)


def find_backbone_card(name: str, catalog: Catalog | None = None) -> BackboneCard | None:
    """The card of a backbone that `resolve_backbone` named; None for one of timm's.

    Raises:
        InputError: When the card, or what it is made of, cannot be read.
        RunError: When the hub cannot be reached.
    """
    if name.startswith(_HUB):
        return card_of_repository(name.removeprefix(_HUB))
    if timm.is_model(name.partition(".")[0]):
        return None
    if Path(name).is_absolute():
        path = Path(name)
        return (
            card_of_folder(path, name) if path.is_dir() else load_backbone_card(path).model_copy(update={"name": name})
        )
    entry = (catalog or Catalog()).find("backbone", name)
    return checked_card({"name": name, **entry.card}, entry.file).model_copy(update={"folder": entry.file.parent})


def probe_backbone(name: str, image_size: int | None = None, catalog: Catalog | None = None) -> BackboneInfo:
    """A backbone's structure, without loading or allocating it.

    Args:
        name: A name from `resolve_backbone`.
        image_size: Height and width in pixels; None for the size that the weights were trained at.
        catalog: The catalogues in which cards stand; None for those that need no ``--catalog``.

    Raises:
        InputError: When it is no backbone that can be adapted, or the image size is no multiple of its patch.
    """
    card = find_backbone_card(name, catalog)
    return _probe(name, image_size, card.model_dump_json() if card is not None else "", _Held(card))


def build_backbone(
    name: str,
    image_size: int,
    weights: str,
    device: torch.device,
    catalog: Catalog | None = None,
    *,
    drop_path: float = 0.0,
) -> Backbone:
    """A backbone with its weights.

    Args:
        name: A name from `resolve_backbone`.
        image_size: Height and width in pixels; the position table is resized to it.
        weights: ``default`` (the published ones), ``none`` (random, from torch's global generator), or a file or
            folder.
        device: Where to put it; on ``meta`` no weight is read.
        catalog: The catalogues in which cards stand; None for those that need no ``--catalog``.
        drop_path: Rate of stochastic depth in the last block; it grows from 0 in the first one.

    Raises:
        InputError: When the weights cannot be had or belong to another model.
    """
    from petlbench.models.weights import RANDOM, load_weights

    info = probe_backbone(name, image_size, catalog)
    if device.type == "meta":
        with device:
            return Backbone(info, create_module(info, drop_path=drop_path))
    if info.card is not None and weights == "default":  # before anything is allocated: they may not be had
        weights = str(fetch_weights(info.card))
    is_filled = weights not in RANDOM
    module = _create(info.timm, info.image_size, info.arguments, drop_path=drop_path, is_filled=is_filled)
    loaded = load_weights(module, name, weights, info.card)
    if loaded.differences:
        info = replace(info, arguments={**info.arguments, **dict(loaded.differences)})
    return Backbone(info, module.to(device), loaded.words)


def create_module(info: BackboneInfo, num_classes: int = 0, *, drop_path: float = 0.0) -> nn.Module:
    """The module of a backbone with random weights, with a classifier where there are classes.

    Args:
        info: Its structure.
        num_classes: Number of classes C; 0 for none.
        drop_path: Rate of stochastic depth in the last block.
    """
    return _create(info.timm, info.image_size, info.arguments, num_classes, drop_path)


def list_vision_transformers(pattern: str = "") -> list[str]:
    """The names of timm's models that can be adapted and hold a text, or match a pattern with ``*``."""
    pattern = pattern if "*" in pattern else f"*{pattern}*"
    return sorted(
        {name for module in (*_MODULES, *_CONVOLUTIONAL) for name in timm.list_models(pattern, module=module)}
    )


@dataclass(frozen=True)
class _Held:
    """A card beside the text of it, which tells one from another in a cache."""

    card: BackboneCard | None = field(compare=False)


@cache
def _probe(name: str, image_size: int | None, _text: str, held: _Held) -> BackboneInfo:
    card = held.card
    cfg = timm.get_pretrained_cfg(name if card is None else card.timm) or PretrainedCfg()
    known = timm.is_model((name if card is None else card.timm).partition(".")[0])
    if card is not None and not known:
        raise unknown_name("backbone", card.timm, timm.list_models(), hint=f"{name} is made of it: architecture.timm")
    native = (card.architecture.img_size if card is not None else None) or cfg.input_size[-1]
    architecture, arguments = (name, {}) if card is None else (card.timm, card.architecture.differences)
    with torch.device("meta"):
        info = describe_module(_create(architecture, native, arguments), name, cfg, native)
        if image_size not in (None, info.native_size, native):
            _check_image_size(name, image_size, info.patch)
            info = describe_module(_create(architecture, image_size, arguments), name, cfg, image_size)
    return info if card is None else _as_carded(info, card, native)


def _as_carded(info: BackboneInfo, card: BackboneCard, native: int) -> BackboneInfo:
    """What the module says, and what its card does."""
    stated = card.preprocessing
    return replace(
        info,
        native_size=native,
        card=card,
        timm=card.timm,
        arguments=card.architecture.differences,
        mean=stated.mean if stated is not None else None,
        std=stated.std if stated is not None else None,
        interpolation=stated.interpolation if stated is not None else info.interpolation,
    )


def _repository(name: str) -> str | None:
    """The repository on the hub that a name means; None where it is none, or that of a plain folder."""
    for prefix in (_HUB, "hf_hub:"):
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name if name.startswith("timm/") else None


def _is_of(entry: Entry, repository: str) -> bool:
    """Whether a card is that of a repository, and the only thing that is adapted out of it."""
    source = entry.card.get("source")
    return isinstance(source, dict) and str(source.get("hub", "")).casefold() == repository.casefold()


def _local(name: str) -> Path | None:
    """The card or the folder that a name is the path of."""
    text = name.removeprefix("local-dir:")
    if not text.strip() or "://" in text:
        return None
    path = user_path(text, what="--backbone")
    is_path = text != name or path.suffix == ".toml" or "/" in text.removesuffix("/") or path.is_dir()
    if not is_path or not path.exists():
        return None
    return path.resolve()


def _check_not_shadowed(name: str, catalog: Catalog | None) -> None:
    """Refuse a user's own card that is called like one of timm's architectures: none takes the other's place."""
    entry = catalog.entries("backbone").get(name) if catalog is not None else None
    if entry is not None and not entry.shipped:
        raise InputError(
            f"the backbone name '{name}' is taken twice: by timm, and by {entry.file}",
            hint="rename the card; no entry overrides another",
            kind="duplicate_name",
        )


def _with_tag(name: str) -> str:
    architecture, _, tag = name.partition(".")
    if tag and name not in _tagged(architecture):
        raise unknown_name("backbone", name, _tagged(architecture))
    if name == DEFAULT_BACKBONE.partition(".")[0]:
        return DEFAULT_BACKBONE
    default = timm.get_pretrained_cfg(architecture) if not tag else None
    return f"{architecture}.{default.tag}" if default is not None and default.tag else name


@cache
def _tagged(architecture: str) -> list[str]:
    return [name for name in timm.list_pretrained() if name.partition(".")[0] == architecture]


def _create(
    name: str,
    image_size: int,
    differences: Mapping[str, Any],
    num_classes: int = 0,
    drop_path: float = 0.0,
    *,
    is_filled: bool = False,
) -> nn.Module:
    """Make a module; what it starts with may be anything where each of its tensors ``is_filled`` from a file then."""
    more: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
    try:
        more |= Architecture.model_validate(differences).arguments()
        architecture = name.partition(".")[0]
        is_convolutional = is_model_in_modules(architecture, _CONVOLUTIONAL)
        is_drawn = torch.get_default_device().type != "meta" and not is_filled
        if not is_drawn and is_model_in_modules(architecture, _UNDRAWN):
            more["weight_init"] = "skip"  # values that nothing has, or that none keeps, take half of the time
        more |= {} if is_convolutional else {"img_size": image_size}
        module: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes, **more)
    except (TypeError, AssertionError, ValueError) as error:
        raise not_adaptable(name) from error
    freeze_statistics(module)
    if differences.get("global_pool") == "token_and_avg":
        cast("Any", module).pool = partial(_token_and_mean, cast("Any", module).num_prefix_tokens)
    return module


def _token_and_mean(prefix_tokens: int, tokens: Tensor) -> Tensor:
    """The class token and the mean of the patches of tokens (B, N, D) side by side, (B, 2 D)."""
    return torch.cat([tokens[:, 0], tokens[:, prefix_tokens:].mean(dim=1)], dim=-1)


def _check_image_size(name: str, size: int, patch: int) -> None:
    if size < patch or size % patch:
        near = sorted({max(patch, below) for below in (size // patch * patch, (size // patch + 1) * patch)})
        raise InputError(
            f"image size {size} is not a multiple of the patch of {name}, which is {patch} pixels",
            hint=f"use --image-size {' or '.join(map(str, near))}",
            kind="bad_image_size",
        )
