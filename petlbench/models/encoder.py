"""The encoder in a file of weights: taken out of its wrappers, under timm's keys, and what was left out in words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from petlbench.core.errors import InputError
from petlbench.core.text import printable
from petlbench.models.card import KeyRecipe
from petlbench.models.layouts import LAYOUTS, State, fuse_qkv, recognise

# Entries in which training scripts keep tensors; of several the first one is taken. An average of weights and a teacher
# come in front of what they follow.
_WRAPPERS = (
    *("state_dict_ema", "model_ema", "teacher", "state_dict", "model", "model_state_dict", "net", "network"),
    *("encoder", "backbone", "student", "params"),
)
# What tells of several encoders in one file which one is meant, the best in front.
_PREFERRED = (("ema", "teacher"), ("base_encoder", "backbone", "encoder_q", "visual", "vision"), ("",))
_SECOND = ("student", "momentum", "encoder_k", "target")
_DEEPEST = 3
_SHOWN = 6


@dataclass(frozen=True)
class Encoder:
    """The tensors of an encoder.

    Args:
        state: The tensors under timm's keys.
        layout: The layout that they were in.
        wrapper: The entry of the file that held them; empty where the file held them itself.
        prefix: What stood in front of each key.
        left_out: The parts of the file that are not taken, and single keys of those that are.
        heads: Attention heads, where a tensor shows them; else 0.
    """

    state: State
    layout: str
    wrapper: str = ""
    prefix: str = ""
    left_out: tuple[str, ...] = field(default=())
    heads: int = 0

    @property
    def blocks(self) -> int:
        """Number of blocks; 0 where they are not in one column."""
        numbers = [int(match[1]) for key in self.state if (match := re.match(r"blocks\.(\d+)\.", key))]
        return max(numbers, default=-1) + 1

    def describe(self) -> str:
        """What the file held and what is taken of it, in words."""
        role = next((word for word in ("teacher", "student") if word in f"{self.wrapper}.{self.prefix}"), None)
        title = LAYOUTS[self.layout].title
        parts = [f"{role} of a {title} training" if role else f"weights in the layout of {title}"]
        if self.prefix:
            parts.append(f"prefix {printable(self.prefix)}")
        if self.blocks:
            parts.append(f"{self.blocks} blocks")
        text = ", ".join(parts)
        if not self.left_out:
            return text
        more = f" and {len(self.left_out) - _SHOWN} more" if len(self.left_out) > _SHOWN else ""
        return f"{text}; left out: {', '.join(map(printable, self.left_out[:_SHOWN]))}{more}"


def unwrapped(loaded: object, take: str = "") -> tuple[State, str, list[str]]:
    """The tensors of what a file holds, the entry that they were in, and the entries beside it."""
    level: Mapping[Any, Any] = loaded if isinstance(loaded, Mapping) else {}
    names, others = list[str](), list[str]()
    for _ in range(_DEEPEST):
        inner = [
            name for name in ((take,) if take and not names else _WRAPPERS) if isinstance(level.get(name), Mapping)
        ]
        if not inner:
            break
        others += [str(name) for name in level if name != inner[0]]
        names.append(inner[0])
        level = level[inner[0]]
    return {str(key): value for key, value in level.items() if isinstance(value, Tensor)}, ".".join(names), others


def take_encoder(loaded: object, module: nn.Module, keys: KeyRecipe, origin: str) -> Encoder:
    """The encoder in what a file holds.

    Args:
        loaded: What the file holds.
        module: The model that it is for, without a classifier.
        keys: What the backbone's card says of the keys; what it leaves open is recognised.
        origin: What the file is called, for the error.

    Raises:
        InputError: When several encoders in it are equally meant.
    """
    whole, wrapper, others = unwrapped(loaded, keys.take)
    prefix = _prefix(whole, module, keys.strip, origin)
    inside = {key.removeprefix(prefix): tensor for key, tensor in whole.items() if key.startswith(prefix)}
    others += [key for key in whole if not key.startswith(prefix)]
    layout = keys.layout or recognise(inside) or "timm"
    if layout == "timm" and re.search("teacher|student", f"{wrapper}.{prefix}"):
        layout = "dino"
    dropped = [key for key in inside if keys.drop and key.startswith(keys.drop)]
    state, more = LAYOUTS[layout].to_timm({key: inside[key] for key in inside if key not in set(dropped)})
    for old, new in keys.rename.items():
        state = {key.replace(old, new): tensor for key, tensor in state.items()}
    if keys.split_qkv is not None:
        state = fuse_qkv(state, keys.split_qkv)
    left_out = [*dropped, *more]
    parts = {_part(key) for key in inside.keys() - set(left_out)}
    named = [
        *(_part(key.removeprefix("module.")) for key in others),
        *(key if _part(key) in parts else _part(key) for key in left_out),
    ]
    return Encoder(state, layout, wrapper, prefix, tuple(dict.fromkeys(named)), LAYOUTS[layout].heads(inside))


def _prefix(whole: State, module: nn.Module, strip: Iterable[str], origin: str) -> str:
    """What stands in front of the encoder's keys."""
    for beginning in strip:
        if any(key.startswith(beginning) for key in whole):
            return beginning
    candidates = _candidates(whole, next(iter(module.state_dict()), ""))
    if not candidates:
        return ""
    own = set(module.state_dict())
    ranks = {prefix: (_rank(prefix), -sum(prefix + key in whole for key in own)) for prefix in candidates}
    best = [prefix for prefix in candidates if ranks[prefix] == min(ranks.values())]
    if len(best) > 1:
        raise InputError(
            f"{origin} holds several encoders, behind {' and '.join(map(printable, sorted(best)[:4]))}",
            hint='say in a backbone card which one is meant, for example keys.strip = ["model."]',
            kind="bad_weights",
        )
    return best[0]


def _candidates(whole: State, own_first: str) -> list[str]:
    """Every prefix behind which an encoder begins: one of a named layout, else what begins as the model does."""
    named = _in_front_of({layout.anchor for layout in LAYOUTS.values()}, whole)
    inside = {prefix: {key.removeprefix(prefix): None for key in whole if key.startswith(prefix)} for prefix in named}
    recognised = [prefix for prefix in named if recognise(inside[prefix]) is not None]
    return recognised or sorted(_in_front_of({own_first} - {""}, whole))


def _in_front_of(anchors: Iterable[str], keys: Iterable[str]) -> set[str]:
    """What stands in front of some keys, at the beginning of a part of a name."""
    ends = tuple(anchors)
    return {key.removesuffix(end) for key in keys for end in ends if key == end or key.endswith((f".{end}", f"/{end}"))}


def _rank(prefix: str) -> int:
    """How likely it is that a prefix is meant; smaller is likelier."""
    if any(word in prefix for word in _SECOND):
        return len(_PREFERRED)
    return next(rank for rank, words in enumerate(_PREFERRED) if any(word in prefix for word in words))


def _part(key: str) -> str:
    """The part of a model that a key belongs to."""
    return re.split(r"[./]", key)[0]
