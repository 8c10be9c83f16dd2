"""A method put on a backbone: the parts of a run, what they count, and which methods suit the backbone at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig, derive_seed
from petlbench.models.activation_checkpointing import checkpoint_blocks
from petlbench.models.backbone import Backbone, set_attention_kernel
from petlbench.models.method import Adapted, FrozenFeatures, Method
from petlbench.models.registry import build_backbone
from petlbench.results.result import Parameters

_META = torch.device("meta")


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


def load_backbone(config: RunConfig, device: torch.device, catalog: Catalog | None = None) -> tuple[Backbone, str]:
    """The backbone of a run with its weights, as no method has touched it, and the SHA-256 of them.

    On device ``meta`` no weight is read, and the digest is empty.

    Raises:
        InputError: When the weights cannot be had or do not fit.
    """
    # Random weights stand in for pre-trained ones, which are the same for every seed too.
    torch.manual_seed(derive_seed(0, "backbone"))
    backbone = build_backbone(
        config.backbone, config.image_size, config.weights, device, catalog, drop_path=config.training.drop_path
    )
    return backbone, backbone.digest() if device.type != "meta" else ""


LoadBackbone = Callable[[RunConfig, torch.device, Catalog | None], tuple[Backbone, str]]
"""`load_backbone`, or what gives the same."""


def assemble(
    config: RunConfig,
    method: Method[Any],
    num_classes: int,
    device: torch.device,
    catalog: Catalog | None = None,
    *,
    load: LoadBackbone = load_backbone,
) -> Assembled:
    """The parts of a run: the backbone with its weights, adapted by the method.

    Args:
        config: The run.
        method: Its method, with its settings.
        num_classes: Number of classes C.
        device: Where to build; on ``meta`` nothing is allocated and no weight is read.
        catalog: The catalogues in which the backbone's card stands; None for those that need no ``--catalog``.
        load: Gives the backbone, which is the module's from then on.

    Raises:
        InputError: When the weights cannot be had or do not fit.
    """
    backbone, digest = load(config, device, catalog)
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

    A part of a decomposition, say, keeps the whole on ``meta``, and for as long as the module lives. Moved or copied
    elsewhere, it leaves the whole behind.
    """
    tensors = {tensor for module in modules for tensor in (*module.parameters(), *module.buffers())}
    storages = [tensor.untyped_storage() for tensor in tensors]
    holders = Counter(map(id, storages))
    for tensor, storage in zip(tensors, storages, strict=True):
        if storage.nbytes() > tensor.nbytes and holders[id(storage)] == 1:
            tensor.data = tensor.detach().clone()


def count_parameters(assembled: Assembled) -> Parameters:
    """The learnable parameters, against backbone as adapted, method's parameters and task head together."""
    sizes = {name: tensor.numel() for name, tensor in assembled.adapted.parameters().items()}
    learnable, head = sum(sizes.values()), sum(size for name, size in sizes.items() if _is_head(name))
    everything: set[nn.Parameter] = {*assembled.backbone.module.parameters(), *assembled.adapted.module.parameters()}
    total = sum(tensor.numel() for tensor in everything)
    published_total = total + assembled.adapted.published_extra_total
    return Parameters(
        learnable=learnable,
        total=total,
        ratio=learnable / total,
        ratio_published=learnable / published_total,
        head=head or None,
    )


def _is_head(name: str) -> bool:
    """Whether a parameter is the classifier's: a module ``head`` of the method's own, not one inside the backbone."""
    *modules, _ = name.split(".")
    return modules[-1:] == ["head"] and modules[0] != "backbone"
