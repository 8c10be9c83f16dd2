"""What each method learns on a backbone, remembered between commands: to try sixty methods takes seconds."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import petlbench
from petlbench.core.catalog import Catalog
from petlbench.core.entry import Entry
from petlbench.core.environment import code_state, default_cache_dir, package_versions
from petlbench.core.errors import InputError
from petlbench.core.files import write_atomically
from petlbench.core.user_files import read_json
from petlbench.results.result import Parameters

_FOLDER = "compatibility"


@dataclass(frozen=True)
class Compatibility:
    """A method in its default settings on a backbone: the reason why it cannot adapt it, or what is learned."""

    entry: Entry
    reason: str | None
    parameters: Parameters | None


@dataclass(frozen=True)
class OnBackbone:
    """The methods on a backbone.

    Attributes:
        name: The backbone's full name.
        image_size: Its height and width in pixels.
        answers: One a method, in alphabetical order.
    """

    name: str
    image_size: int
    answers: list[Compatibility]


def methods_on(
    catalog: Catalog,
    backbone: str,
    image_size: int | None,
    num_classes: int,
    on_done: Callable[[], None] = lambda: None,
) -> OnBackbone:
    """What each method of the catalogue learns on a backbone: remembered, or tried on device ``meta``.

    An answer holds for as long as the method's code, petlbench's, the backbone's card and the versions of packages are
    the same. A backbone that is a file, a folder or on the hub is tried each time.

    Args:
        catalog: The catalogues.
        backbone: Its name, as the user gives it.
        image_size: Height and width in pixels; None for the size that the weights were trained at.
        num_classes: Number of classes C.
        on_done: Told each time that a method is tried.

    Raises:
        InputError: When the backbone is unknown or cannot be adapted at all.
    """
    file = _file(catalog, backbone, image_size, num_classes)
    kept = _kept(file)
    digests = {name: entry.digest() for name, entry in catalog.entries("method").items()}
    if kept is None or kept["digests"] != digests:
        kept = _tried(catalog, backbone, image_size, num_classes, on_done) | {"digests": digests}
        if file is not None:
            _keep(file, kept)
    return OnBackbone(kept["name"], kept["image_size"], [_answer(catalog, *item) for item in kept["answers"].items()])


def check_compatibility(
    catalog: Catalog, backbone: str, image_size: int | None, num_classes: int
) -> Iterator[Compatibility]:
    """Whether each method can adapt a backbone, tried on device ``meta``: nothing is loaded and nothing allocated.

    Methods come in alphabetical order.

    Args:
        catalog: The catalogues.
        backbone: Its name, as `resolve_backbone` takes it.
        image_size: Height and width in pixels; None for the size that the weights were trained at.
        num_classes: Number of classes C.

    Raises:
        InputError: When the backbone is unknown or cannot be adapted at all.
    """
    import torch

    from petlbench.models.backbone import Backbone
    from petlbench.models.build import Assembled, count_parameters
    from petlbench.models.method import load_method
    from petlbench.models.registry import build_backbone, probe_backbone, resolve_backbone

    meta = torch.device("meta")
    info = probe_backbone(resolve_backbone(backbone, catalog), image_size, catalog)
    plain = build_backbone(info.name, info.image_size, "none", meta, catalog).module
    for entry in catalog.entries("method").values():
        method = load_method(entry).from_settings({})
        if reason := method.refuse(info):
            yield Compatibility(entry, reason, None)
            continue
        own = Backbone(info, copy.deepcopy(plain))
        with meta:
            adapted = method.adapt(own, num_classes)
        yield Compatibility(entry, None, count_parameters(Assembled(method, own, adapted, None, num_classes, "")))


def _tried(
    catalog: Catalog, backbone: str, image_size: int | None, num_classes: int, on_done: Callable[[], None]
) -> dict[str, Any]:
    from petlbench.models.registry import probe_backbone, resolve_backbone

    info = probe_backbone(resolve_backbone(backbone, catalog), image_size, catalog)
    answers = {}
    for each in check_compatibility(catalog, backbone, image_size, num_classes):
        parameters = None if each.parameters is None else each.parameters.model_dump(mode="json")
        answers[each.entry.name] = {"reason": each.reason, "parameters": parameters}
        on_done()
    return {"name": info.name, "image_size": info.image_size, "answers": answers}


def _answer(catalog: Catalog, name: str, answer: Mapping[str, Any]) -> Compatibility:
    parameters = None if answer["parameters"] is None else Parameters(**answer["parameters"])
    return Compatibility(catalog.entries("method")[name], answer["reason"], parameters)


def _file(catalog: Catalog, backbone: str, image_size: int | None, num_classes: int) -> Path | None:
    """Where an answer is kept; None for a backbone of which more than its card decides."""
    entry = catalog.entries("backbone").get(backbone)
    if ":" in backbone or Path(backbone).exists() or not (entry is None or entry.shipped):
        return None
    card = "" if entry is None else entry.digest()
    question = [backbone, card, image_size, num_classes, petlbench.__version__, code_state(), package_versions()]
    name = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:32]
    return default_cache_dir() / _FOLDER / f"{name}.json"


def _kept(file: Path | None) -> dict[str, Any] | None:
    """What is kept in a file; None where there is none, or it is damaged."""
    if file is None or not file.exists():
        return None
    try:
        kept = read_json(file)
        for answer in kept["answers"].values():
            if answer["parameters"] is not None:
                Parameters(**answer["parameters"])
        return kept if {"name", "image_size", "digests"} <= set(kept) else None
    except (InputError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _keep(file: Path, kept: Mapping[str, Any]) -> None:
    with suppress(OSError, InputError):  # the cache cannot be written: the next command tries anew
        file.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(file) as temporary:
            temporary.write_text(json.dumps(kept), encoding="utf-8")
