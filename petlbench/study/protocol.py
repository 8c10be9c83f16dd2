"""Protocols as files: what a table's runs have in common, the search in front of them, and how far a run is from it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from petlbench.core.catalog import Catalog, read_entries
from petlbench.core.config import RunConfig, TrainingConfig, validate_settings
from petlbench.core.entry import Entry
from petlbench.core.errors import InputError
from petlbench.core.request import Request, Tuned, with_training
from petlbench.core.text import printable
from petlbench.core.user_files import user_path
from petlbench.results.result import Origin

# What a run is of, rather than how it is carried out.
_NOT_COMMON = {"method", "dataset", "seed", "draw", "method_settings", "dataset_settings", "test_set", "test_on"}


class ProtocolCard(BaseModel):
    """One protocol, as its file has it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = Field(description="its name in the catalogue, or the path of its file")
    title: str = Field(min_length=1, description="the name used in tables")
    description: str = Field("", description="what it is for, and what may be compared under it")
    source: str = Field("", description="where it is from")
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = Field((0,), min_length=1, description="one run each")
    sweep: str = Field("", description="the search in front, whose winner's settings the runs take; empty for none")
    request: Mapping[str, Any] = Field(
        default_factory=dict, description="fields of a request and of its training that hold for all runs"
    )

    @field_validator("request")
    @classmethod
    def _is_known(cls, request: Mapping[str, Any]) -> Mapping[str, Any]:
        values = with_training(request, "request")
        names = {each.name for each in fields(Request)} - _NOT_COMMON
        unknown = [*sorted(set(values) - names), *sorted(set(values["training"]) - set(TrainingConfig.model_fields))]
        if unknown:
            raise ValueError(f"no setting that all runs can share: {', '.join(unknown)}")
        # A method gives rate and decay where the protocol says nothing.
        whole = validate_settings(TrainingConfig, {"lr": 1, "weight_decay": 0, **values["training"]}, "training")
        return {**values, "training": {name: getattr(whole, name) for name in values["training"]}}

    @property
    def training(self) -> Tuned:
        """Its settings of the training, which hold where neither user nor search nor recipe says otherwise."""
        return Tuned(self.request["training"])

    @property
    def common(self) -> dict[str, Any]:
        """Its fields of a request, the training left out."""
        return {name: value for name, value in self.request.items() if name != "training"}

    @property
    def study(self) -> dict[str, Any]:
        """What a study under it has: ``seeds``, and the fields of a ``request`` that hold for all of its runs."""
        return {"seeds": list(self.seeds), "request": self.common}

    def deviations(self, config: RunConfig, tuned: Collection[str] = ()) -> list[str]:
        """Names of what a run has otherwise than the protocol, such as ``image_size`` or ``training.epochs``.

        Args:
            config: The run.
            tuned: Settings of the training that a search or a recipe gave, which are no deviations.
        """
        training = {name: value for name, value in self.request["training"].items() if name not in tuned}
        names = [name for name, value in self.common.items() if getattr(config, name) != value]
        return [
            *names,
            *(f"training.{name}" for name, value in training.items() if getattr(config.training, name) != value),
        ]


def load_protocol(catalog: Catalog, name: str) -> ProtocolCard:
    """Read a protocol's file.

    Args:
        catalog: The catalogues.
        name: Its name there, or the path of a TOML file.

    Raises:
        InputError: When nothing has that name, or the file is wrong.
    """
    entry = _entry_of(name) if name.endswith(".toml") else catalog.find("protocol", name)
    known = str(entry.file) if name.endswith(".toml") else name
    card = validate_settings(ProtocolCard, {**entry.card, "name": known}, f"the protocol file {entry.file}")
    if card.sweep:
        catalog.find("sweep", card.sweep)
    return card


def _entry_of(path: str) -> Entry:
    """The one entry of a file that is named by its path."""
    file = user_path(path, what="--protocol").resolve()
    entries = list(read_entries("protocol", file, is_its_own=True))
    if len(entries) != 1:
        message = f"--protocol {printable(path)}: the file has {len(entries)} cards, and a protocol is one"
        raise InputError(message, hint="give a catalogue with --catalog, and a card's name", kind="broken_catalog")
    return entries[0]


@dataclass(frozen=True)
class Basis:
    """What holds where a user says nothing: over a protocol's fields what a search found, or a recipe.

    Args:
        protocol: The protocol; None for none.
    """

    protocol: ProtocolCard | None = None

    def below(self, request: Request, tuned: Tuned) -> Request:
        """The request with what a search or recipe gives, and then the protocol, where it says nothing itself.

        Raises:
            InputError: When it asks for what a protocol alone can ask for.
        """
        if request.test_every_epoch and not (self.protocol and self.protocol.common.get("test_every_epoch")):
            message = "test_every_epoch: only a protocol can ask for scores of the test split after every epoch"
            raise InputError(message, hint="--protocol audit has them (docs/protocol.md)", kind="bad_setting")
        request = tuned.below(request)
        return request if self.protocol is None else self.protocol.training.below(request)

    def origin(self, request: Request, tuned: Tuned, config: RunConfig) -> Origin | None:
        """Where the settings of a run are from; None where no protocol, search or recipe has a part in it.

        Args:
            request: What the user asked for.
            tuned: What a search or recipe gave.
            config: The run.
        """
        if self.protocol is None:
            return Origin(recipe=tuned.recipe, sweep=tuned.sweep) if tuned.recipe or tuned.sweep else None
        deviations = self.protocol.deviations(config, set(tuned.training) - set(request.training))
        if self.protocol.sweep and tuned.sweep != self.protocol.sweep:
            deviations.append("sweep")
        return Origin(protocol=self.protocol.name, deviations=deviations, recipe=tuned.recipe, sweep=tuned.sweep)


NO_BASIS = Basis()
"""Nothing but what is asked for, and methods' defaults."""
