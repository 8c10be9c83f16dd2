"""FacT: one factorised update of all weight matrices of a frozen backbone, as a tensor train or in Tucker's form."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from petlbench import Adapted, Backbone, BackboneInfo, Classifier, Method, MethodCard, MethodSettings, TrainingDefaults
from petlbench.methods._branches import learned_names

__all__ = ["FacTTK", "FacTTKSettings", "FacTTT", "FacTTTSettings"]


class FacTTTSettings(MethodSettings):
    """Settings of the tensor train."""

    rank: int = Field(
        16,
        ge=1,
        le=1024,
        description="rank r of the factors; the authors choose at most 16 for every dataset",
        json_schema_extra={"search": [4, 8, 16]},
    )
    scale: float = Field(
        1.0,
        gt=0,
        le=1000,
        description="factor s on the update; the authors search it for every dataset",
        json_schema_extra={"search": [0.01, 0.1, 1, 10, 100]},
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout in front of the last factor")


class FacTTKSettings(FacTTTSettings):
    """Settings of Tucker's form."""

    layout: Literal["blocks", "authors"] = Field(
        "blocks",
        description="where the parts of an MLP's core stand: blocks, each in its own rows and columns, as in the "
        "paper's formula; authors, in the order in which their code cuts the core",
    )

    rank: int = Field(
        32,
        ge=1,
        le=256,
        description="rank r of the factors; the authors choose at most 32 for every dataset",
        json_schema_extra={"search": [8, 16, 32]},
    )


class _FacT(Method[Any]):
    """What both forms share.

    The query, key, value and output weights of a block are a D x D matrix each; those of an MLP that is m D wide inside
    are m each, one below the other in the first layer and side by side in the second. To each of them s · V Σ U is
    added, where U (r x D) and V (D x r) are the same everywhere. V is zero at the start.
    """

    defaults = TrainingDefaults(lr=1e-3, weight_decay=1e-4, published_rates=(1e-3,))
    starts_at_backbone = True

    def refuse(self, backbone: BackboneInfo) -> str | None:
        """Needs weights made of D x D matrices, with the same D in every block."""
        return backbone.lacks("isotropic", "qkv", "plain_mlp")

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Put the factors beside the backbone and their update beside every linear layer of its blocks."""
        backbone.split_qkv()
        places = _places(backbone)
        factors = self._factors(list(places.values()), backbone.info.width)
        for name, place in places.items():
            backbone.replace(name, _Updated(backbone.module.get_submodule(name), factors, place))
        module = Classifier(backbone, num_classes)
        module.factors = factors
        return Adapted(module, learned_names(module, "factors."), merge=lambda: _merge(backbone, list(places)))

    @abstractmethod
    def _factors(self, places: Sequence[_Place], width: int) -> _Factors:
        """Make the learned factors for the layers at some places."""


class FacTTT(_FacT):
    """Updates every matrix by s · V Σ U with an r x r matrix Σ of its own (FacT, tensor-train format)."""

    card = MethodCard(
        name="fact_tt",
        title="FacT-TT",
        family="low-rank",
        year=2023,
        paper="https://arxiv.org/abs/2212.03145",
        summary="Learns two factors for all weight matrices and a small matrix for each.",
    )
    Settings = FacTTTSettings

    def _factors(self, places: Sequence[_Place], width: int) -> _Factors:
        return _TensorTrain(places, width, self.settings)


class FacTTK(_FacT):
    """Updates matrix j by s · V Σ_j U, where Σ_j = Σ_t P_tj C_t has one core C for all matrices (FacT, Tucker format).

    C holds r matrices of r x r, and P one column of r numbers for each D x D matrix. The authors' code lays out the
    r x r parts of an MLP's Σ in an order of its own, which mixes the indices of the core with those of the parts; that
    is the layout ``authors``.
    """

    card = MethodCard(
        name="fact_tk",
        title="FacT-TK",
        family="low-rank",
        year=2023,
        paper="https://arxiv.org/abs/2212.03145",
        summary="Learns two factors and a core for all weight matrices, and the core's mixture for each.",
    )
    Settings = FacTTKSettings

    def _factors(self, places: Sequence[_Place], width: int) -> _Factors:
        return _Tucker(places, width, self.settings)


@dataclass(frozen=True)
class _Place:
    """Where a layer stands among all.

    Args:
        layer: Its number.
        first: How many D x D matrices the layers in front of it have.
        rows: D x D matrices below one another in its weight, a.
        columns: D x D matrices side by side in its weight, b.
    """

    layer: int
    first: int
    rows: int
    columns: int

    @property
    def matrices(self) -> int:
        """D x D matrices in its weight, a b."""
        return self.rows * self.columns


class _Factors(nn.Module):
    """U and V, and in a subclass what Σ is made of.

    Args:
        width: Channels of a token, D.
        settings: The method's settings; r is the rank.
    """

    def __init__(self, width: int, settings: FacTTTSettings) -> None:
        super().__init__()
        self.u = nn.Parameter(torch.empty(settings.rank, width))
        self.v = nn.Parameter(torch.zeros(width, settings.rank))
        nn.init.kaiming_uniform_(self.u, a=math.sqrt(5))
        self.dropout, self.scale = nn.Dropout(settings.dropout), settings.scale

    @abstractmethod
    def sigma(self, place: _Place) -> Tensor:
        """Make Σ of all matrices of a layer, (a r, b r)."""

    def forward(self, x: Tensor, place: _Place) -> Tensor:
        """Map what a layer reads, (B, N, b D), to what is added to its output, (B, N, a D)."""
        low = nn.functional.linear(torch.unflatten(x, -1, (place.columns, -1)), self.u).flatten(-2)
        mixed = self.dropout(nn.functional.linear(low, self.sigma(place)))
        return self.scale * nn.functional.linear(torch.unflatten(mixed, -1, (place.rows, -1)), self.v).flatten(-2)

    def update(self, place: _Place) -> Tensor:
        """Compute s · V Σ U for all matrices of a layer, (a D, b D)."""
        sigma = self.sigma(place).view(place.rows, len(self.u), place.columns, len(self.u))
        return self.scale * torch.einsum("oi,aibj,jd->aobd", self.v, sigma, self.u).flatten(2).flatten(0, 1)


class _TensorTrain(_Factors):
    """A Σ for each layer, drawn as torch draws a linear layer."""

    def __init__(self, places: Sequence[_Place], width: int, settings: FacTTTSettings) -> None:
        super().__init__(width, settings)
        shapes = [(place.rows * settings.rank, place.columns * settings.rank) for place in places]
        self.sigmas = nn.ParameterList(nn.init.kaiming_uniform_(torch.empty(shape), a=math.sqrt(5)) for shape in shapes)

    def sigma(self, place: _Place) -> Tensor:
        return cast("Tensor", self.sigmas[place.layer])


class _Tucker(_Factors):
    """A core C (r, r, r) whose first axis is mixed by the columns of P (r, number of D x D matrices)."""

    def __init__(self, places: Sequence[_Place], width: int, settings: FacTTKSettings) -> None:
        super().__init__(width, settings)
        rank, matrices = settings.rank, sum(place.matrices for place in places)
        self.core = nn.Parameter(nn.init.xavier_uniform_(torch.empty(rank, rank, rank)))
        self.p = nn.Parameter(nn.init.xavier_uniform_(torch.empty(rank, matrices)))
        self._as_authors = settings.layout == "authors"

    def sigma(self, place: _Place) -> Tensor:
        mixture = self.p[:, place.first : place.first + place.matrices]
        if self._as_authors:
            # The r x r x (a b) product of the core and the mixture, its rows cut as they lie in memory.
            full = torch.einsum("tij,tk->jik", self.core, mixture).flatten(1)
            return full.T if place.columns == 1 else full
        mixture = mixture.reshape(-1, place.rows, place.columns)
        return torch.einsum("tab,tij->aibj", mixture, self.core).flatten(2).flatten(0, 1)


class _Updated(nn.Module):
    """A linear layer with its part of the update."""

    def __init__(self, inner: nn.Module, factors: _Factors, place: _Place) -> None:
        super().__init__()
        self.inner, self.place = inner, place
        # In a tuple, so that the factors, which all layers share, are the whole module's children and nobody else's.
        self._shared = (factors,)

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.inner(x) + self._shared[0](x, self.place))

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """Add the update to the layer's weight."""
        cast("Tensor", self.inner.weight).add_(self._shared[0].update(self.place))
        return self.inner


def _places(backbone: Backbone) -> dict[str, _Place]:
    """Find the place of every linear layer of the blocks by its name."""
    width, places = backbone.info.width, dict[str, _Place]()
    first = 0
    for name in (name for names in backbone.linears("q", "k", "v", "proj", "fc1", "fc2") for name in names):
        layer: Any = backbone.module.get_submodule(name)
        place = _Place(len(places), first, layer.out_features // width, layer.in_features // width)
        places[name], first = place, first + place.matrices
    return places


def _merge(backbone: Backbone, names: list[str]) -> None:
    for name in names:
        backbone.replace(name, cast("_Updated", backbone.module.get_submodule(name)).merged())
    backbone.fuse_qkv()
