"""Frozen features that methods declare: the final feature, the states between the blocks, and important tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor

from petlbench.features.attention import attend_and_weigh, importance
from petlbench.models.backbone import Backbone
from petlbench.models.info import BackboneInfo
from petlbench.models.method import FeatureSpec, FrozenFeatures, TensorSpec

__all__ = ["FinalFeature", "ImportantTokens", "LayerStates", "NormedTokens"]

S = TypeVar("S", bound=tuple[Tensor, ...])

CacheForm = Literal["keys_values", "tokens"]
"""In which form the feature cache keeps what is said of important tokens."""


class FinalFeature:
    """The feature that the backbone's own classifier would read: ``final``, (B, D)."""

    def spec(self, backbone: BackboneInfo) -> FeatureSpec:
        """One vector of the backbone's width an image."""
        return FeatureSpec("fine", {"feature": "final"}, {"final": TensorSpec((backbone.feature_width,))})

    def extract(self, backbone: Backbone, image: Tensor) -> dict[str, Tensor]:
        """The final feature, from one pass through the whole backbone."""
        return {"final": backbone.pooled(image)}


@dataclass(frozen=True)
class LayerStates:
    """The tokens in front of some blocks, or behind the last: ``states``, (B, layers, N, D).

    Args:
        layers: Which of the L + 1 states (0-based, ascending); state l stands in front of block l, L behind the last.
    """

    layers: Sequence[int]

    def spec(self, backbone: BackboneInfo) -> FeatureSpec:
        """All tokens of the layers' states."""
        shape = (len(self.layers), backbone.tokens, backbone.width)
        key = {"feature": "layer_states", "layers": ",".join(map(str, self.layers))}
        return FeatureSpec("fine", key, {"states": TensorSpec(shape)})

    def extract(self, backbone: Backbone, image: Tensor) -> dict[str, Tensor]:
        """The layers' states, from one pass through the backbone."""
        states = [state for layer, state in enumerate(backbone.states(image)) if layer in self.layers]
        return {"states": torch.stack(states, dim=1)}


@dataclass(frozen=True)
class ImportantTokens:
    """Keys and values of the tokens that receive the most attention, chosen per image, layer and head.

    Args:
        layers: Layers that are read (0-based, ascending).
        ratio: Share r of the tokens that is kept; K = int(N r), the class token counted in N.
        score: ``global`` (mean over all queries), ``class_token`` (the class token's query alone) or ``all_heads``
            (global and the mean over the heads, which then keep the same tokens).
    """

    layers: Sequence[int]
    ratio: float
    score: str

    def spec(self, backbone: BackboneInfo) -> FeatureSpec:
        """Keys and values, each (layers, heads, K, head width) an image."""
        shape = (len(self.layers), backbone.heads, self._kept(backbone.tokens), backbone.width // backbone.heads)
        return FeatureSpec("fine", self._key(), {"keys": TensorSpec(shape), "values": TensorSpec(shape)})

    def extract(self, backbone: Backbone, image: Tensor) -> dict[str, Tensor]:
        """Keys and values of the important tokens (FPT, section 2.3), each (B, layers, heads, K, d)."""
        keys, values = zip(*self.by_layer(backbone, image), strict=True)
        return {"keys": torch.stack(keys, dim=1), "values": torch.stack(values, dim=1)}

    def by_layer(self, backbone: Backbone, image: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Keys and values of the important tokens, layer by layer, each (B, heads, K, D / heads)."""
        for (_, key, value), kept in self._selected(backbone.queries_keys_values, image):
            tokens = kept.unsqueeze(-1).expand(-1, -1, -1, key.shape[-1])
            yield key.gather(2, tokens), value.gather(2, tokens)

    def _selected(self, states: Callable[..., Iterator[S]], image: Tensor) -> Iterator[tuple[S, Tensor]]:
        """Layer by layer what is asked for, which ends in queries, keys and values, and what is kept, (B, H, K)."""
        importances: list[Tensor] = []

        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            read, scores = attend_and_weigh(query, key, value)
            importances.append(scores)
            return read

        kernel = attend if self.score != "class_token" else None
        for state in states(image, self.layers, kernel):
            # Where the attention itself was not computed here, its probabilities are.
            scores = importances.pop() if importances else self.weigh(*state[-3:-1])
            yield state, self.select(scores)

    def weigh(self, query: Tensor, key: Tensor) -> Tensor:
        """Importance of each token per head, (B, H, N), from one layer's queries and keys, each (B, H, N, d)."""
        return importance(query[:, :, :1] if self.score == "class_token" else query, key)

    def select(self, scores: Tensor) -> Tensor:
        """Indices of the K most important tokens, (B, H, K) in falling order, given their importance (B, H, N)."""
        if self.score == "all_heads":
            scores = scores.mean(dim=1, keepdim=True).expand_as(scores)
        return scores.topk(self._kept(scores.shape[2]), dim=-1).indices

    def _kept(self, tokens: int) -> int:
        return max(1, int(tokens * self.ratio))

    def _key(self) -> dict[str, str | float]:
        layers = ",".join(map(str, self.layers))
        return {"feature": "important_tokens", "layers": layers, "ratio": self.ratio, "score": self.score}


@dataclass(frozen=True)
class NormedTokens(ImportantTokens):
    """The important tokens themselves, normed as the attention reads them: keys and values are linear in them.

    Where all heads keep the same tokens, that is half of keys and values. Where each head keeps its own, every token
    that is kept by one of them is there, and which head keeps which.
    """

    def spec(self, backbone: BackboneInfo) -> FeatureSpec:
        """Tokens, (layers, U, heads, D / heads) an image; where heads differ, rows of each head, (layers, heads, K)."""
        layers, heads, kept = len(self.layers), backbone.heads, self._kept(backbone.tokens)
        rows = kept if self._alike(backbone.tokens) else min(backbone.tokens, heads * kept)
        tensors = {"tokens": TensorSpec((layers, rows, heads, backbone.width // heads))}
        if not self._alike(backbone.tokens):
            tensors["rows"] = TensorSpec((layers, heads, kept), torch.int16)
        return FeatureSpec("fine", {**self._key(), "form": "tokens"}, tensors)

    def extract(self, backbone: Backbone, image: Tensor) -> dict[str, Tensor]:
        """The normed tokens of each layer that a head keeps, and where heads differ the rows of each."""
        tokens, rows = [], []
        for (normed, *_), kept in self._selected(backbone.attention_inputs, image):
            number = normed.shape[1]
            if self._alike(number):
                places = kept[:, 0]
            else:
                places = _union(kept, number)
                rows.append(places.argsort(dim=1).unsqueeze(1).expand(-1, kept.shape[1], -1).gather(2, kept))
                places = places[:, : min(number, kept.shape[1] * kept.shape[2])]
            read = normed.gather(1, places.unsqueeze(-1).expand(-1, -1, normed.shape[2]))
            tokens.append(read.view(*read.shape[:2], kept.shape[1], -1))
        stacked = {"tokens": torch.stack(tokens, dim=1)}
        return stacked | ({"rows": torch.stack(rows, dim=1).to(torch.int16)} if rows else {})

    def shared(self, backbone: Backbone) -> dict[str, Tensor]:
        """Each layer's ``weight.J`` (2 D, D) and, where there is one, ``bias.J`` (2 D) for keys and values."""
        maps = {}
        for position, layer in enumerate(self.layers):
            weight, bias = backbone.key_value_maps(layer)
            maps[f"weight.{position}"] = weight
            if bias is not None:
                maps[f"bias.{position}"] = bias
        return maps

    def _alike(self, tokens: int) -> bool:
        """Whether all heads keep the same ones of so many tokens."""
        return self.score == "all_heads" or self._kept(tokens) == tokens


def _union(kept: Tensor, tokens: int) -> Tensor:
    """All tokens' numbers, (B, N): in front those that a head keeps, (B, H, K), in rising order."""
    is_kept = torch.zeros(len(kept), tokens, dtype=torch.int8, device=kept.device).scatter_(1, kept.flatten(1), 1)
    return is_kept.argsort(dim=1, descending=True, stable=True)


def in_form(frozen: FrozenFeatures, form: CacheForm) -> FrozenFeatures:
    """Frozen features as the cache keeps them; those that have no other form than their own stay."""
    if form == "tokens" and isinstance(frozen, ImportantTokens):
        return NormedTokens(*astuple(frozen))
    return frozen


def has_forms(frozen: FrozenFeatures | None) -> bool:
    """Whether frozen features can be kept in more than one form."""
    return isinstance(frozen, ImportantTokens)


def shared_tensors(frozen: FrozenFeatures, backbone: Backbone, device: torch.device) -> dict[str, Tensor]:
    """Copies on a device of the backbone's tensors by which features in such a form are read; none for most."""
    maps = frozen.shared(backbone) if isinstance(frozen, NormedTokens) else {}
    return {name: tensor.detach().to(device, copy=True) for name, tensor in maps.items()}
