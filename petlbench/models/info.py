"""The structure of a backbone, and the words for what a method may need of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from petlbench.models.card import BackboneCard


# What a method may rely on, and how it is called where it is missing.
CAPABILITIES: Mapping[str, str] = {
    "blocks": "blocks with an attention and an MLP each",
    "isotropic": "tokens of one width and one number from the first block to the last",
    "qkv": "linear layers for queries, keys and values that can be adapted one by one",
    "keys_values": "keys and values that can be read as its attention uses them",
    "linear_keys": "keys that are linear in its normed tokens",
    "plain_mlp": "MLPs of two linear layers, a whole multiple of a token's width inside",
    "class_token": "class token",
    "register_tokens": "register tokens",
    "stages": "stages of convolutions",
    "norms_apart": "norms apart from activations",
}


@dataclass(frozen=True)
class LinearShape:
    """The shape of a linear layer: channels in, channels out, and whether it has a bias."""

    in_features: int
    out_features: int
    bias: bool


@dataclass(frozen=True)
class BackboneInfo:
    """The structure of a backbone at one image size.

    Args:
        name: timm's name with its weight tag, ``architecture.tag``; or the card's name, a path, or ``hf-hub:…``.
        image_size: Height and width that the position table is made for, in pixels.
        native_size: Height and width that the weights were trained at, in pixels.
        blocks: Number of blocks, L.
        width: Channels of a token behind the last block, D; where it is isotropic, of every token.
        widths: Channels of a token in each block; all D where it is isotropic.
        heads: Attention heads of the first block, H; 0 where there is no attention.
        patch: Height and width of a patch in pixels; of convolutions, pixels to a step of the last map.
        prefix_tokens: Class, distillation and register tokens in front of the patches.
        classes: Outputs of the classifier that came with the weights and is left out.
        parameters: Number of parameters without that classifier.
        mean: Mean per colour channel that the weights expect, images in 0 to 1; None where nobody says.
        std: Standard deviation per colour channel.
        interpolation: How the weights' images were resized.
        capabilities: What a method may rely on, in the words of `CAPABILITIES`.
        linears: The linear layers of all blocks by the part that they play: ``q``, ``k``, ``v``, ``proj``, ``fc1``,
            ``fc2``; none where they cannot be told apart.
        card: Its card; None for one of timm's.
        timm: What timm is asked for to make it.
        arguments: In which arguments it differs from that, as plain values under the names of a card.
    """

    name: str
    image_size: int
    native_size: int
    blocks: int
    width: int
    widths: tuple[int, ...]
    heads: int
    patch: int
    prefix_tokens: int
    classes: int
    parameters: int
    mean: tuple[float, float, float] | None
    std: tuple[float, float, float] | None
    interpolation: str
    capabilities: frozenset[str]
    linears: Mapping[str, tuple[LinearShape, ...]] = field(default_factory=dict, hash=False)
    card: BackboneCard | None = field(default=None, hash=False, compare=False)
    timm: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def feature_width(self) -> int:
        """Channels of the final feature: D, or 2 D where it is class token and mean of the patches side by side."""
        return 2 * self.width if self.arguments.get("global_pool") == "token_and_avg" else self.width

    @property
    def tokens(self) -> int:
        """Number of tokens N in front of the first block, prefix tokens included."""
        return (self.image_size // self.patch) ** 2 + self.prefix_tokens

    def cannot_be_narrowed(self, reduction: int) -> str | None:
        """Why no network with the backbone's heads has its width over a reduction, or None when one has."""
        width, rest = divmod(self.width, reduction)
        if rest or width % self.heads:
            return f"width {self.width} over reduction {reduction} cannot be shared by {self.heads} heads"
        return None

    def lacks_either(self, first: str, second: str) -> str | None:
        """Why neither of two capabilities is there, in words, or None when one of them is."""
        return None if second in self.capabilities else self.lacks(first)

    def lacks(self, *needed: str) -> str | None:
        """Which of the needed capabilities are missing, in words, or None when all are there.

        Raises:
            KeyError: When a name is none of `CAPABILITIES`.
        """
        missing = [words for name in needed if (words := CAPABILITIES[name]) and name not in self.capabilities]
        return f"{self.name} has no {' and no '.join(missing)}" if missing else None
