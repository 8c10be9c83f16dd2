"""A reader's settings: those that every reader has, and those that settle doubts about labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from petlbench.core.errors import InputError
from petlbench.core.text import items_of
from petlbench.data.images.decode import MOST_PIXELS
from petlbench.data.images.greys import GREY_HELP
from petlbench.data.notes import refuse_empty_cells
from petlbench.data.order import ORDER_HELP

if TYPE_CHECKING:
    from petlbench.data.card import DatasetCard


def silent(default: Any, **options: Any) -> Any:
    """Return the field of a setting that is no part of a run's description while it has its default.

    Runs are named by their description: settings that are added later must not change the names of those there are.
    """
    return Field(default=default, json_schema_extra={"silent": True}, **options)


class ReaderSettings(BaseModel):
    """Settings that every reader has, which ``--set dataset.NAME=VALUE`` changes; a reader may add some."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str = silent("", description="The task type of files without a card, where it is not one class an image.")
    order: str = silent("", description=ORDER_HELP)
    grey_maximum: float | None = silent(None, gt=0, allow_inf_nan=False, description=GREY_HELP)
    most_pixels: int = silent(MOST_PIXELS, ge=1, description="Most pixels of an image; larger ones are refused.")

    @property
    def task_name(self) -> str:
        """The task type that these settings mean; empty for one class an image, or that of the card."""
        return self.task

    def card_as_set(self, card: DatasetCard) -> DatasetCard:
        """Return a dataset's card as these settings have it: it may be learned in part."""
        return card

    @model_serializer(mode="wrap")
    def _without_silent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = {name: info for name, info in type(self).model_fields.items() if info.json_schema_extra}
        unsaid = {name for name, info in fields.items() if info.default == getattr(self, name)}
        return {name: value for name, value in handler(self).items() if name not in unsaid}


class LabelSettings(ReaderSettings):
    """What settles doubts about labels that the files themselves hold."""

    rename: str = silent("", description="Labels that are written otherwise: OLD=NEW, with commas between.")
    leave_out: str = silent("", description="Labels whose images are left out, with commas between.")

    @model_validator(mode="after")
    def _parses(self) -> Self:
        if any("=" not in item for item in items_of(self.rename)):
            raise ValueError(f"rename {self.rename} is not of the form OLD=NEW,OLD=NEW")
        return self

    def refuse_empty_cells(self, labels: Sequence[str], place: str) -> None:
        """Refuse labels of a table that programs write into an empty cell, unless a setting says what they are.

        Raises:
            InputError: When there are some.
        """
        settled = {item.rpartition("=")[0] for item in items_of(self.rename)} | set(items_of(self.leave_out))
        refuse_empty_cells([label for label in labels if label not in settled], place)

    def relabelled(self, labels: Sequence[str], place: str) -> tuple[list[str | None], tuple[str, ...]]:
        """Return the labels as these settings want them, None for one that is left out, and what was done in words.

        Raises:
            InputError: When a setting names a label that no image has.
        """
        names = dict(item.rpartition("=")[::2] for item in items_of(self.rename))
        dropped = set(items_of(self.leave_out))
        counts = Counter(labels)
        for name in (*names, *dropped):
            if name not in counts:
                raise InputError(
                    f"{place}: no image has the label '{name}', which dataset.rename or dataset.leave_out names",
                    hint=f"the labels are: {', '.join(sorted(counts))}",
                    kind="unknown_label",
                )
        notes = [f"{counts[old]} images of '{old}' are taken as '{new}' (dataset.rename)" for old, new in names.items()]
        notes += [f"{counts[name]} images of '{name}' are left out (dataset.leave_out)" for name in sorted(dropped)]
        return [None if label in dropped else names.get(label, label) for label in labels], tuple(notes)
