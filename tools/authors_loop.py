"""The training loops of the papers' authors, as far as they show in memory, on device ``meta``.

Three things are modelled that petlbench does in other ways: attention layers that hold scores and probabilities to
their end, batches that are held while the next one comes, and FPT's keys and values that are held per layer beside the
stacked ones. They are read off the structure of the authors' public code and of what it builds on, and set with the
printed figures in sight.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import MethodType
from typing import Any, cast

import torch
from timm.models import vision_transformer as vit
from torch import Tensor, nn

from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig
from petlbench.data.loader import Batch
from petlbench.features.frozen import ImportantTokens
from petlbench.features.source import FeatureSource, LiveFeatures
from petlbench.memory.predict import MetaDevice, feature_source
from petlbench.models.backbone import Backbone
from petlbench.models.build import Assembled, assemble
from petlbench.models.method import Inputs, configured_method
from petlbench.models.precision import autocast
from petlbench.results.result import Memory
from petlbench.training.evaluation import Predictor
from petlbench.training.step import new_step

__all__ = ["assemble_as_published", "predict_as_published", "predict_training_as_published"]

_META = torch.device("meta")
# What cuBLAS keeps with torch's own setting for it (``:4096:2:16:8``).
_WORKSPACE = (2 * 4096 + 8 * 16) * 1024
_CLASSES = 7


def assemble_as_published(config: RunConfig, catalog: Catalog) -> Assembled:
    """Put together the parts of a run in the authors' form, on device ``meta``.

    Args:
        config: The run, for a CUDA device with eager attention.
        catalog: The catalogues.
    """
    assembled = assemble(config, configured_method(config, catalog), _CLASSES, _META)
    for module in (assembled.backbone.module, assembled.adapted.module):
        _hold_scores(module)
    return assembled


def predict_as_published(config: RunConfig, assembled: Assembled) -> tuple[Memory, Memory]:
    """Predict what a run in the authors' form takes.

    Args:
        config: The run.
        assembled: Its parts, as `assemble_as_published` gives them.

    Returns:
        Memory in bytes, without a CUDA context (``process`` is what is reserved): of training alone, and of a training
        whose batch is held while an evaluation holds two of its own.
    """
    run = _AuthorsRun(config, assembled)
    with run.device.at_work():
        run.train(steps=2)
        training = run.device.memory(context=0)
        run.evaluate()
        run.train(steps=1)
    return training, run.device.memory(context=0)


def predict_training_as_published(config: RunConfig, assembled: Assembled) -> Memory:
    """Predict what training alone takes in the authors' form: the first of what `predict_as_published` gives.

    Args:
        config: The run.
        assembled: Its parts, as `assemble_as_published` gives them.
    """
    run = _AuthorsRun(config, assembled)
    with run.device.at_work():
        run.train(steps=2)
    return run.device.memory(context=0)


class _AuthorsRun:
    """A run in the authors' form on device ``meta``."""

    def __init__(self, config: RunConfig, assembled: Assembled) -> None:
        self._config = config
        self._assembled = assembled
        self._source = source = _Held(feature_source(config, assembled))
        adapted = assembled.adapted
        adapted.module.zero_grad(set_to_none=True)
        self._step = new_step(config, adapted, source, None)
        self.device = MetaDevice(config, workspace=_WORKSPACE)
        self.device.hold(adapted.module, self._step.optimizer, *source.beside)
        self._batch: Batch | None = None

    def train(self, steps: int) -> None:
        """Take training steps; as in a plain loop, a batch is held until the next one has been made."""
        self._assembled.adapted.module.train()
        for _ in range(steps):
            self._batch = self._next_batch()
            self._step(self._batch)

    def evaluate(self) -> None:
        """Predict two batches while the training batch is held, its preloaded features with it.

        Features that are computed live are held in one place for training and evaluation alike.
        """
        source = self._source
        training = None if source.is_live else source.held
        predictor = Predictor(self._assembled.adapted.module.eval(), source, _META, self._config.precision)
        for _ in range(2):
            batch = self._next_batch()
            predictor.logits(batch)
        del batch
        source.held = source.held if training is None else training

    def _next_batch(self) -> Batch:
        return self.device.batch(self._assembled, self._source.spared_view)


class _Held:
    """Holds the features of a batch until those of the next one have been made.

    Args:
        inner: Makes them.
    """

    def __init__(self, inner: FeatureSource) -> None:
        self.inner = inner
        self.spared_view = inner.spared_view
        self.beside = inner.beside
        self.is_live = isinstance(inner, LiveFeatures)
        self.held: object = None

    def __call__(self, batch: Batch) -> Inputs:
        if isinstance(self.inner, LiveFeatures) and isinstance(self.inner.frozen, ImportantTokens):
            inputs, beside = _tokens_by_layer(self.inner, self.inner.frozen, batch)
        else:
            inputs, beside = self.inner(batch), None
        self.held = (inputs, beside)
        return inputs


def _tokens_by_layer(live: LiveFeatures, frozen: ImportantTokens, batch: Batch) -> tuple[Inputs, object]:
    """Make FPT's features, and give what the layers returned beside the stacked tensors."""
    naive = _NaiveTokens(frozen.layers, frozen.ratio, frozen.score)
    with torch.no_grad(), autocast(_META, live.precision):
        layers = list(naive.by_layer(live.backbone, batch.views[live.spec.view]))
    keys, values = (torch.stack(parts, dim=1).float() for parts in zip(*layers, strict=True))
    others = {name: view for name, view in batch.views.items() if name != live.spec.view}
    return Inputs(others, {"keys": keys, "values": values}), layers


class _NaiveTokens(ImportantTokens):
    """Chooses tokens from a second, whole attention matrix, and gathers nothing where all are kept."""

    def weigh(self, query: Tensor, key: Tensor) -> Tensor:
        """Importance of each token, (B, H, N)."""
        return _probabilities(query, key).mean(dim=2)

    def by_layer(self, backbone: Backbone, image: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The kept keys and values of each layer in turn, each (B, H, K, d)."""
        if self.ratio < 1:
            yield from super().by_layer(backbone, image)
            return
        for _, key, value in backbone.queries_keys_values(image, self.layers):
            yield key, value


def _hold_scores(module: nn.Module) -> None:
    """Let timm's attention layers hold what the authors' hold: each step's result under a name of its own."""
    attention: Any = vit.Attention  # type: ignore[attr-defined, unused-ignore]
    for layer in module.modules():
        if isinstance(layer, attention):
            cast("Any", layer).forward = MethodType(_attend, layer)


def _attend(layer: Any, x: Tensor, attn_mask: object = None, is_causal: bool = False) -> Tensor:
    """Attend with separate queries, keys and values, scores divided behind the product, and nothing freed early."""
    batch, tokens, width = x.shape
    projected = layer.qkv(x).chunk(3, dim=-1)
    query, key, value = (part.view(batch, tokens, layer.num_heads, -1).transpose(1, 2) for part in projected)
    scores = query @ key.transpose(-2, -1)
    scores = scores / math.sqrt(layer.head_dim)
    probabilities = scores.softmax(dim=-1)
    context = (probabilities @ value).transpose(1, 2).reshape(batch, tokens, width)
    output: Tensor = layer.proj(context)
    return output


def _probabilities(query: Tensor, key: Tensor) -> Tensor:
    scores = query @ key.transpose(-2, -1)
    scores = scores / math.sqrt(key.shape[-1])
    return scores.softmax(dim=-1)
