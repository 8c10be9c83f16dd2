"""Which methods suit a backbone, and what each of them learns on it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from petlbench.core.catalog import Catalog
from petlbench.core.entry import Entry
from petlbench.models.backbone import Backbone
from petlbench.models.build import Assembled, count_parameters
from petlbench.models.method import load_method
from petlbench.models.registry import build_backbone, probe_backbone, resolve_backbone
from petlbench.results.result import Parameters

__all__ = ["Compatibility", "check_compatibility"]

_META = torch.device("meta")


@dataclass(frozen=True)
class Compatibility:
    """Whether a method, in its default settings, can adapt a backbone.

    Args:
        entry: The method.
        reason: Why it cannot, or None when it can.
        parameters: What is learned, or None when it cannot.
    """

    entry: Entry
    reason: str | None
    parameters: Parameters | None


def check_compatibility(
    catalog: Catalog, backbone: str, image_size: int | None, num_classes: int
) -> Iterator[Compatibility]:
    """Whether each method can adapt a backbone, tried on device ``meta``: nothing is loaded and nothing allocated.

    Methods come in alphabetical order.

    Args:
        catalog: The catalogues.
        backbone: timm's name.
        image_size: Height and width in pixels; None for the size that the weights were trained at.
        num_classes: Number of classes C.

    Raises:
        InputError: When the backbone is unknown or cannot be adapted at all.
    """
    info = probe_backbone(resolve_backbone(backbone), image_size)
    plain = build_backbone(info.name, info.image_size, "none", _META).module
    for entry in catalog.entries("method").values():
        method = load_method(entry).from_settings({})
        if reason := method.refuse(info):
            yield Compatibility(entry, reason, None)
            continue
        own = Backbone(info, copy.deepcopy(plain))
        with _META:
            adapted = method.adapt(own, num_classes)
        yield Compatibility(entry, None, count_parameters(Assembled(method, own, adapted, None, num_classes, "")))
