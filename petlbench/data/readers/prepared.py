"""A prepared dataset: official files that were checked once, and the table that says what they are."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from petlbench.core.errors import InputError
from petlbench.core.text import csv_cell, plain_cell
from petlbench.core.user_files import inside, read_bytes
from petlbench.data.card import DatasetCard
from petlbench.data.images.files import ImageFacts
from petlbench.data.readers.base import ImageFiles, ReaderCard, Source
from petlbench.data.readers.settings import ReaderSettings, silent
from petlbench.data.readers.several import Doubt
from petlbench.data.record import OfficialDraw, Record, Split
from petlbench.data.tasks.base import Label, Labels
from petlbench.data.tasks.multilabel import SEPARATOR, UNKNOWN

PREPARED_FILE = "prepared.json"
TABLE_FILE = "images.csv"
_DRAWS = "draws"
_AGAIN = "prepare it again: petlbench data prepare {} --again"
_COLUMNS = ("image_id", "path", "label", "split", "group", "sha256", "bytes", "width", "height", "format")


class WrittenSplit(BaseModel):
    """One split with its manifest."""

    model_config = ConfigDict(frozen=True)

    file: str = Field(description="The manifest, relative to the dataset's folder.")
    sha256: str = Field(description="Digest of the manifest: images, labels, groups and sides.")
    split_sha256: str = Field(description="Digest of image ids and sides only.")
    counts: dict[str, dict[str, int]] = Field(description="Images by class, for each side.")


class Prepared(BaseModel):
    """What ``prepared.json`` says; keys that are not known are passed over."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="The dataset's name.")
    card_version: int = Field(description="Version of the card that it was prepared by.")
    card_sha256: str = Field(description="Digest of that card.")
    root: str = Field(description="The folder of the images: absolute, or relative to the dataset's folder.")
    images: int = Field(description="Number of images.")
    table_sha256: str = Field(description="Checksum of the table of images.")
    counts: dict[str, int] = Field(description="Images by class.")
    split_seed: int = Field(description="Seed of the splits.")
    splits: dict[str, WrittenSplit] = Field(description="The manifests by split scheme.")
    differences: list[str] = Field(default=[], description="Where the numbers are not the card's, in words.")
    left_out: dict[str, list[str]] = Field(default={}, description="Files that are no images of it, by reason.")
    skipped: list[str] = Field(default=[], description="What was wrong with images that could not be read.")
    clusters: list[list[str]] | None = Field(
        default=None, description="Ids of images that are nearly the same, used as groups; None where not searched."
    )
    remarks: list[str] = Field(default=[], description="What else was noticed while the files were read, in words.")
    source: str = Field(default="", description="The folder that the user named, where images were left in it.")
    form: Literal[1] = Field(alias="schema", description="Version of this form.")

    def root_in(self, folder: Path) -> Path:
        """Return the folder of the images, given the dataset's folder: in it, or where the user's files were left."""
        return Path(self.root) if Path(self.root).is_absolute() else inside(folder, self.root, what="root")

    def document(self) -> dict[str, Any]:
        """Return it as plain values."""
        return self.model_dump(mode="json", by_alias=True)

    def notes(self) -> tuple[str, ...]:
        """Say in words what is not in the dataset, and what its numbers do not agree with."""
        notes = [f"{len(paths)} left out: {reason}" for reason, paths in self.left_out.items() if paths]
        if self.skipped:
            notes.append(f"{len(self.skipped)} unreadable images are left out, the first: {self.skipped[0]}")
        if self.clusters:
            notes.append(f"{len(self.clusters)} clusters of near duplicates are kept together as groups")
        return (*notes, *self.remarks, *self.differences)


def card_digest(card: DatasetCard) -> str:
    """Return the SHA-256 of all that a card says."""
    text = json.dumps(card.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read_prepared(folder: Path, name: str) -> Prepared | None:
    """Return what ``prepared.json`` in the folder of a dataset of that name says; None where it is not prepared.

    Raises:
        InputError: When the file is not of the expected form.
    """
    file = folder / PREPARED_FILE
    if not file.exists():
        return None
    try:
        return Prepared.model_validate_json(read_bytes(file, what="description"))
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            f"{file} cannot be used: {'.'.join(map(str, first['loc']))}: {first['msg']}",
            hint=_AGAIN.format(name),
            kind="bad_prepared",
        ) from error


def table_bytes(
    records: Sequence[Record], facts: Mapping[str, ImageFacts], classes: Sequence[str], labels: Labels
) -> bytes:
    """Return the table of images as CSV in UTF-8: one row an image with what its file says, sorted by image id."""
    ordered = sorted(records, key=lambda record: record.image_id)
    extra = list(dict.fromkeys(name for record in ordered for name, _ in _further(record)))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_COLUMNS, *map(csv_cell, extra)])
    for record in ordered:
        image, more = facts[record.image_id], dict(_further(record))
        label = labels.text(record.label, classes)
        where = (record.image_id, record.path, label, record.split or "", record.group or "")
        what = (image.sha256, image.bytes, image.width, image.height, image.format)
        writer.writerow([*map(csv_cell, where), *what, *(csv_cell(more.get(name, "")) for name in extra)])
    return text.getvalue().encode("utf-8")


def read_table(content: bytes, parse: Callable[[str], Label]) -> Iterator[tuple[Record, ImageFacts]]:
    """Yield each image of a table that `table_bytes` wrote, its label parsed so, and what its file says of it."""
    rows = csv.reader(io.StringIO(content.decode("utf-8"), newline=""))
    header = [plain_cell(name) for name in next(rows, [])]
    if tuple(header[: len(_COLUMNS)]) != _COLUMNS:
        raise ValueError(f"its columns are {', '.join(header)}")
    extra = header[len(_COLUMNS) :]
    for row in rows:
        image_id, path, name, split, group, sha256, size, width, height, kind, *more = map(plain_cell, row)
        others = {key: value for key, value in zip(extra, more, strict=True) if value}
        draws = _parse_draws(others.pop(_DRAWS, ""))
        label, side = parse(name), cast("Split | None", split or None)
        record = Record(image_id, path, label, group or None, side, tuple(others.items()), draws)
        yield record, ImageFacts(sha256, int(size), int(width), int(height), kind)


def _further(record: Record) -> tuple[tuple[str, str], ...]:
    """What further columns say of an image: those of the release, and the draws that have it, where it made any."""
    draws = ";".join(f"{draw.side} {draw.shots} {draw.number}" for draw in record.draws)
    return (*record.extra, (_DRAWS, draws)) if draws else record.extra


def _parse_draws(text: str) -> tuple[OfficialDraw, ...]:
    cells = (draw.split(" ") for draw in text.split(";") if draw)
    return tuple(OfficialDraw(cast("Split", side), int(shots), int(number)) for side, shots, number in cells)


class PreparedSettings(ReaderSettings):
    """Which of several labels are learned, and what becomes of those that are uncertain."""

    labels: str = silent(
        "", description="Those of several labels that are learned, with commas between, or a set that the card names."
    )
    uncertain: Doubt = silent(
        "ignore", description="Labels that are uncertain: left out of loss and scores, absent, or present."
    )

    def card_as_set(self, card: DatasetCard) -> DatasetCard:
        """Return the card with the labels that are learned as its classes.

        Raises:
            InputError: When one is none of the card's.
        """
        chosen = card.label_sets.get(self.labels, tuple(name.strip() for name in self.labels.split(",")))
        if not self.labels:
            return card
        for name in chosen:
            if name not in card.classes:
                raise InputError(
                    f"dataset.labels: '{card.title}' has no label '{name}'",
                    hint=f"labels: {', '.join(card.classes)}; sets: {', '.join(card.label_sets) or 'none'}",
                    kind="bad_setting",
                )
        return card.model_copy(update={"classes": tuple(dict.fromkeys(chosen))})

    def parse(self, text: str, classes: Sequence[str], labels: Labels) -> Label:
        """Return a label that `Labels.text` has written, of several labels those that these settings leave."""
        if labels.form != "labels":
            return labels.parse(text, classes)
        marks = {"ignore": UNKNOWN, "zero": None, "one": ""}
        pairs = ((part.startswith(UNKNOWN), part.removeprefix(UNKNOWN)) for part in text.split(SEPARATOR))
        parts = {name: marks[self.uncertain] if uncertain else "" for uncertain, name in pairs if name in classes}
        return labels.parse(
            SEPARATOR.join(f"{mark}{name}" for name, mark in parts.items() if mark is not None), classes
        )


class PreparedReader(ImageFiles):
    """Reads a prepared dataset by its table, without looking for files.

    Args:
        source: The dataset's card and its folder, which holds ``prepared.json``.

    Raises:
        InputError: When the dataset is not prepared, was prepared by another version of the card, its folder is gone,
            or the table was changed.
    """

    card = ReaderCard(name="official", title="official files that were prepared")
    Settings = PreparedSettings

    def __init__(self, source: Source) -> None:
        folder, card = source.path, source.card
        prepared = read_prepared(folder, source.name)
        if prepared is None or card is None:
            raise source.missing(
                f"the dataset '{source.name}' is not prepared: there is no {folder / PREPARED_FILE}",
                f"petlbench data prepare {source.name}, with --from DIR where you have the official files already; "
                "another folder of datasets is named with --data-root",
            )
        if prepared.card_version != card.version:
            raise other_card(prepared, card)
        self.root = prepared.root_in(folder)
        if not self.root.is_dir():
            raise InputError(
                f"the images of '{prepared.name}' are missing: there is no folder {self.root}",
                hint=f"prepare it from their new place: petlbench data prepare {source.name} --from DIR --again",
                kind="data_missing",
            )
        settings: PreparedSettings = source.settings
        if source.labels.form != "labels" and (settings.labels or settings.uncertain != "ignore"):
            message = f"'{prepared.name}' has one class an image: dataset.labels and dataset.uncertain mean nothing"
            raise InputError(message, hint="leave them out", kind="bad_setting")
        try:
            content = _checked_table(folder, prepared)
            rows = list(read_table(content, lambda text: settings.parse(text, card.classes, source.labels)))
        except (LookupError, ValueError, csv.Error) as error:
            message = f"{folder / TABLE_FILE} is no table of images: {type(error).__name__}: {error}"
            raise InputError(message, hint=_AGAIN.format(prepared.name), kind="bad_prepared") from error
        self.prepared = prepared
        self.classes = card.classes
        self.records = tuple(record for record, _ in rows)
        for record in self.records:
            inside(self.root, record.path, what=f"a path in {folder / TABLE_FILE}")
        self.facts: Mapping[str, ImageFacts] = {record.image_id: facts for record, facts in rows}
        self.notes = prepared.notes()

    def content_hash(self, record: Record) -> str:
        """Return the SHA-256 of the file's bytes.

        Raises:
            InputError: When the file is absent, or not the one that was prepared.
        """
        digest = super().content_hash(record)
        if digest != self.facts[record.image_id].sha256:
            raise InputError(
                f"the image {self.file(record)} is not the one that was prepared: its checksum is another",
                hint=f"see what else changed: petlbench data verify {self.prepared.name}",
                kind="changed_image",
            )
        return digest


def other_card(prepared: Prepared, card: DatasetCard) -> InputError:
    """Build the error for a dataset that was prepared by another version of its card."""
    return InputError(
        f"'{prepared.name}' was prepared by version {prepared.card_version} of its card, which is now at version "
        f"{card.version}: images, labels or splits may be others",
        hint=_AGAIN.format(prepared.name),
        kind="other_card",
    )


def _checked_table(folder: Path, prepared: Prepared) -> bytes:
    file = folder / TABLE_FILE
    content = read_bytes(file, what="table") if file.exists() else b""
    if hashlib.sha256(content).hexdigest() != prepared.table_sha256:
        raise InputError(
            f"{file} is not the table that was written when '{prepared.name}' was prepared",
            hint=_AGAIN.format(prepared.name),
            kind="bad_prepared",
        )
    return content
