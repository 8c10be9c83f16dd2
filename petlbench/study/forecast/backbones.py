"""What methods learn on many backbones and what that takes, predicted without a byte of weights."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from petlbench.core.catalog import Catalog
from petlbench.core.entry import Entry
from petlbench.core.errors import InputError
from petlbench.core.interrupt import check_interrupt
from petlbench.core.request import Request
from petlbench.memory.predict import predict_training
from petlbench.memory.shape_cache import shared_shapes
from petlbench.models.build import assemble, count_parameters
from petlbench.models.info import BackboneInfo
from petlbench.results.result import Memory, Parameters
from petlbench.run.resolve import ResolvedRun, resolve


@dataclass(frozen=True)
class Suitability:
    """A method on a backbone: what is learned and what a step of training takes, or why it cannot be adapted."""

    method: str
    reason: str | None = None
    image_size: int | None = None
    parameters: Parameters | None = None
    memory: Memory | None = None

    def document(self) -> dict[str, Any]:
        """The answer as plain values."""
        figures = {name: getattr(self, name) for name in ("parameters", "memory")}
        plain = {name: None if part is None else part.model_dump(mode="json") for name, part in figures.items()}
        suits = {"suits": self.reason is None, "reason": self.reason, "image_size": self.image_size}
        return {"method": self.method, **suits, **plain}


def predict_backbones(
    catalog: Catalog, methods: Sequence[str], classes: int, settings: Mapping[str, Any]
) -> Iterator[tuple[Entry, list[Suitability]]]:
    """What each method learns on each backbone of the catalogue, in alphabetical order, with its default settings.

    Args:
        catalog: The catalogues.
        methods: Names of methods.
        classes: Number of classes C.
        settings: Other values of the request, by name.

    Raises:
        InputError: When a method is unknown.
    """
    for name in methods:
        catalog.find("method", name)
    answers: dict[object, Suitability] = {}  # backbones of one structure, and there are many, need one answer
    for entry in catalog.entries("backbone").values():
        row = []
        for name in methods:
            check_interrupt()
            request = Request(name, backbone=entry.name, weights="random", **{"device": "cuda", **settings})
            try:
                run = resolve(request, catalog, Path())
            except InputError as error:
                row.append(Suitability(name, error.message))
                continue
            key = (name, _structure(run.backbone))
            if key not in answers:
                answers[key] = _suitability(run, classes, catalog)
            row.append(answers[key])
        yield entry, row


def _structure(info: BackboneInfo) -> object:
    """What tells a backbone from others in what it takes."""
    arguments = tuple(sorted(info.arguments.items()))
    return info.timm.partition(".")[0], arguments, info.image_size, info.classes


def _suitability(run: ResolvedRun, classes: int, catalog: Catalog) -> Suitability:
    with _rare_collection(), shared_shapes():
        assembled = assemble(run.config, run.method, classes, torch.device("meta"), catalog)
        memory = predict_training(run.config, assembled)
    return Suitability(run.config.method, None, run.config.image_size, count_parameters(assembled), memory)


@contextmanager
def _rare_collection() -> Iterator[None]:
    """Let Python look for garbage rarely: a step leaves next to none, and to look takes a sixth of the time."""
    usual = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()
