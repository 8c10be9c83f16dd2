"""The parts of a run put together: method, backbone, adapted module and what it counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from petlbench.backbone import Backbone, BackboneInfo, build_backbone, probe_backbone, set_attention_kernel
from petlbench.catalog import Catalog
from petlbench.checkpointing import checkpoint_blocks
from petlbench.config import RunConfig, derive_seed
from petlbench.data.card import DatasetCard
from petlbench.data.loader import Batch
from petlbench.data.views import Augmentation, Normalization, View
from petlbench.method import Adapted, FrozenFeatures, Inputs, Method, load_method
from petlbench.result import Parameters
from petlbench.step import Objective, Step, build_step

__all__ = ["Assembled", "assemble", "augmentation_of", "build_views", "count_parameters", "new_step", "normalization"]


@dataclass(frozen=True)
class Assembled:
    """A method put on a backbone.

    Args:
        method: The method with its settings.
        backbone: The backbone, on the device.
        adapted: The module to train, on the device.
        frozen: What the module takes from the frozen backbone, or None.
        num_classes: Number of classes C.
        weights_digest: SHA-256 of the backbone's weights before it was adapted; empty on device ``meta``.
    """

    method: Method[Any]
    backbone: Backbone
    adapted: Adapted
    frozen: FrozenFeatures | None
    num_classes: int
    weights_digest: str


def assemble(config: RunConfig, catalog: Catalog, num_classes: int, device: torch.device) -> Assembled:
    """Build the backbone, give it its weights and let the method adapt it.

    Args:
        config: The run.
        catalog: The catalogues.
        num_classes: Number of classes C.
        device: Where to build; on ``meta`` nothing is allocated and no weight is read.

    Raises:
        InputError: When the weights cannot be had or do not fit.
    """
    method = load_method(catalog.find("method", config.method)).from_settings(config.method_settings)
    # Random weights stand in for pre-trained ones, which are the same for every seed too.
    torch.manual_seed(derive_seed(0, "backbone"))
    backbone = build_backbone(config.backbone, config.image_size, config.weights, device)
    digest = backbone.digest() if device.type != "meta" else ""
    torch.manual_seed(derive_seed(config.seed, "adapt"))
    with torch.device("meta") if device.type == "meta" else torch.device("cpu"):
        adapted = method.adapt(backbone, num_classes)
    adapted.module.to(device)
    if device.type == "meta":
        _compact(backbone.module, adapted.module)
    adapted.freeze_the_rest()
    for module in (backbone.module, adapted.module):
        set_attention_kernel(module, config.attention_kernel)
    if config.checkpointing:
        checkpoint_blocks(adapted.module)
    return Assembled(method, backbone, adapted, method.features(backbone.info), num_classes, digest)


def _compact(*modules: nn.Module) -> None:
    """Give what stands alone in a larger storage a storage of its own size, as a move to a device does.

    A piece of a decomposition, say, keeps the whole on ``meta``, and for as long as the module lives. Moved or copied
    elsewhere, it leaves the whole behind.
    """
    tensors = {tensor for module in modules for tensor in (*module.parameters(), *module.buffers())}
    storages = [tensor.untyped_storage() for tensor in tensors]
    holders = Counter(map(id, storages))
    for tensor, storage in zip(tensors, storages, strict=True):
        if storage.nbytes() > tensor.nbytes and holders[id(storage)] == 1:
            tensor.data = tensor.detach().clone()


def count_parameters(assembled: Assembled) -> Parameters:
    """Count what is learned against backbone as adapted, method's parameters and task head together."""
    learnable = sum(tensor.numel() for tensor in assembled.adapted.parameters().values())
    everything: set[nn.Parameter] = {*assembled.backbone.module.parameters(), *assembled.adapted.module.parameters()}
    total = sum(tensor.numel() for tensor in everything)
    published_total = total + assembled.adapted.published_extra_total
    return Parameters(
        learnable=learnable, total=total, ratio=learnable / total, ratio_published=learnable / published_total
    )


def new_step(
    config: RunConfig, adapted: Adapted, source: Callable[[Batch], Inputs], class_weights: torch.Tensor | None
) -> Step:
    """Set up the optimiser step that a config describes.

    Args:
        config: The run.
        adapted: The module and what it learns.
        source: Turns a batch into what the module eats.
        class_weights: Weight of each class, (C,), or None.
    """
    objective = Objective(config.training.label_smoothing, class_weights)
    return build_step(adapted, source, objective, config.training, config.precision)


def normalization(config: RunConfig, card: DatasetCard) -> Normalization:
    """The mean and standard deviation that a run uses: the backbone's own, or on request the card's."""
    if config.normalize == "card" and card.mean is not None and card.std is not None:
        return Normalization(card.mean, card.std, "card")
    info = probe_backbone(config.backbone, config.image_size)
    return Normalization(info.mean, info.std, "backbone")


def augmentation_of(config: RunConfig, card: DatasetCard) -> Augmentation | None:
    """The augmentation of a run; the standard one leaves mirror images out where they could change the label."""
    if config.training.augment == "none":
        return None
    return Augmentation() if card.mirror else Augmentation(mirror=0.0)


def build_views(
    config: RunConfig, method: Method[Any], info: BackboneInfo, chosen: Normalization, augmentation: Augmentation | None
) -> Mapping[str, View]:
    """Make the training views of a run; `View.without_augmentation` makes those for evaluation.

    A view whose features are preloaded is never augmented: the backbone sees each image once.
    """
    frozen = method.features(info)
    fixed = frozen.spec(info).view if frozen is not None and config.preload else None
    views = {}
    for name, spec in method.views(info, config.image_size).items():
        augmented = spec.augment and name != fixed
        views[name] = View(spec.size, info.interpolation, chosen, augmentation if augmented else None)
    return views
