"""Frozen features that methods declare: the final feature, the states between the blocks, and important tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from petlbench.features.attention import attend_and_weigh, importance
from petlbench.models.backbone import Backbone
from petlbench.models.info import BackboneInfo
from petlbench.models.method import FeatureSpec, TensorSpec

__all__ = ["FinalFeature", "ImportantTokens", "LayerStates"]


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
        score: ``global`` (mean over all queries) or ``class_token`` (the class token's query alone).
    """

    layers: Sequence[int]
    ratio: float
    score: str

    def spec(self, backbone: BackboneInfo) -> FeatureSpec:
        """Keys and values, each (layers, heads, K, head width) an image."""
        shape = (len(self.layers), backbone.heads, self._kept(backbone.tokens), backbone.width // backbone.heads)
        tensors = {"keys": TensorSpec(shape), "values": TensorSpec(shape)}
        layers = ",".join(map(str, self.layers))
        return FeatureSpec(
            "fine",
            {"feature": "important_tokens", "layers": layers, "ratio": self.ratio, "score": self.score},
            tensors,
        )

    def extract(self, backbone: Backbone, image: Tensor) -> dict[str, Tensor]:
        """Keys and values of the important tokens (FPT, section 2.3), each (B, layers, heads, K, d)."""
        keys, values = zip(*self.by_layer(backbone, image), strict=True)
        return {"keys": torch.stack(keys, dim=1), "values": torch.stack(values, dim=1)}

    def by_layer(self, backbone: Backbone, image: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Keys and values of the important tokens, layer by layer, each (B, heads, K, D / heads)."""
        importances: list[Tensor] = []

        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            read, scores = attend_and_weigh(query, key, value)
            importances.append(scores)
            return read

        kernel = attend if self.score == "global" else None
        for query, key, value in backbone.queries_keys_values(image, self.layers, kernel):
            # Where the attention itself was not computed here, its probabilities are.
            scores = importances.pop() if importances else self.weigh(query, key)
            tokens = self.select(scores).unsqueeze(-1).expand(-1, -1, -1, key.shape[-1])
            yield key.gather(2, tokens), value.gather(2, tokens)

    def weigh(self, query: Tensor, key: Tensor) -> Tensor:
        """Importance of each token by the score, (B, H, N), from one layer's queries and keys, each (B, H, N, d)."""
        return importance(query[:, :, :1] if self.score == "class_token" else query, key)

    def select(self, scores: Tensor) -> Tensor:
        """Indices of the K most important tokens, (B, H, K) in falling order, given their importance (B, H, N)."""
        return scores.topk(self._kept(scores.shape[2]), dim=-1).indices

    def _kept(self, tokens: int) -> int:
        return max(1, int(tokens * self.ratio))
