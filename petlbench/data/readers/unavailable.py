"""The reader of cards whose official files petlbench cannot read yet."""

from __future__ import annotations

from PIL.Image import Image

from petlbench.core.errors import InputError
from petlbench.data.readers.base import Reader, ReaderCard, Source
from petlbench.data.record import Record

__all__ = ["UnavailableReader"]


class UnavailableReader(Reader):
    """Refuses every dataset, so that a card may be written before its reader."""

    card = ReaderCard(name="unavailable", title="no reader yet")

    def __init__(self, source: Source) -> None:
        raise InputError(
            f"the images of '{source.name}' cannot be read: petlbench has no reader for its official files yet; they "
            f"would lie in {source.path}",
            hint=f"arrange them as class folders or with a CSV file and give that path; official page: {source.home}",
            kind="data_missing",
        )

    def open(self, record: Record) -> Image:
        """There is nothing to open."""
        raise NotImplementedError
