"""A dataset on its way to be prepared: images checked, near duplicates put together, splits written down."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path

from petlbench.core.config import RunConfig
from petlbench.data.card import DatasetCard
from petlbench.data.dataset import Dataset
from petlbench.data.duplicates import near_duplicate_groups
from petlbench.data.images.files import ImageFacts, read_facts
from petlbench.data.manifest import manifest_digest, manifest_of, split_digest, write_manifest
from petlbench.data.official.fetch import Sources
from petlbench.data.official.read import OfficialImages
from petlbench.data.readers.base import ImageFiles
from petlbench.data.readers.prepared import PREPARED_FILE, TABLE_FILE, Prepared, WrittenSplit, card_digest, table_bytes
from petlbench.data.reading import map_images, refusal
from petlbench.data.record import SPLITS, Record
from petlbench.data.splits import SplitScheme, assign_splits
from petlbench.data.tasks.base import TaskType

__all__ = ["Draft", "default_schemes"]

_SPLITS_FOLDER = "splits"
_DRAFT = ".preparing"
_SEED: int = RunConfig.model_fields["split_seed"].default


def default_schemes(card: DatasetCard) -> tuple[SplitScheme, ...]:
    """Return the splits of a card's default protocol: all parts where it has parts."""
    scheme = SplitScheme.parse(card.split)
    return tuple(replace(scheme, index=index) for index in range(scheme.parts)) or (scheme,)


@dataclass(eq=False)
class Draft:
    """A dataset on its way to be prepared.

    Args:
        sources: Where its files come from.
        root: The folder of its images.
        records: The images.
        official: What else was read there.
        task: The card's task type.
        facts: What each file that was checked says of its image, by image id.
        skipped: What was wrong with images that are left out.
        clusters: Ids of near duplicates; None where none were searched.
    """

    sources: Sources
    root: Path
    records: tuple[Record, ...]
    official: OfficialImages
    task: TaskType
    facts: dict[str, ImageFacts] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    clusters: list[list[str]] | None = None

    def check_images(self, workers: int, skip_corrupt: bool) -> None:
        """Read every image once: decode it, measure it, hash it.

        Raises:
            InputError: When one cannot be read and is not to be skipped.
        """

        def check(record: Record) -> ImageFacts:
            return read_facts(self.root / record.path)

        self.facts, errors = map_images(self.records, check, workers, self.sources.progress, phase="checking images")
        if errors and not skip_corrupt:
            hint = "get the official files again, or leave unreadable images out and count them with --skip-corrupt"
            raise refusal(errors, hint)
        self.skipped = [error.message for error in errors.values()]
        self.records = tuple(record for record in self.records if record.image_id in self.facts)

    def group_duplicates(self, workers: int) -> None:
        """Make groups of near duplicates, where nothing else tells which images belong together."""
        card = self.sources.card
        grouped = any(record.group is not None for record in self.records)
        if card.grouping != "unavailable" or card.split == "official" or grouped:
            return
        group = near_duplicate_groups(self._dataset(), workers, self.sources.progress)
        members: defaultdict[str, list[str]] = defaultdict(list)
        for image, name in group.items():
            members[name].append(image)
        self.clusters = [sorted(images) for images in members.values()]
        self.records = tuple(replace(record, group=group.get(record.image_id)) for record in self.records)

    def publish(self) -> Prepared:
        """Write table, manifests and ``prepared.json``; the last of these makes the dataset prepared.

        Raises:
            InputError: When the dataset cannot be split as its card says.
        """
        folder, draft = self.sources.folder, self.sources.folder / _DRAFT
        shutil.rmtree(draft, ignore_errors=True)
        (draft / _SPLITS_FOLDER).mkdir(parents=True)
        try:
            prepared = self._write(draft)
            # From here on a kill leaves a dataset that is not prepared, and never one that is half so.
            (folder / PREPARED_FILE).unlink(missing_ok=True)
            shutil.rmtree(folder / _SPLITS_FOLDER, ignore_errors=True)
            for name in (_SPLITS_FOLDER, TABLE_FILE, PREPARED_FILE):
                (draft / name).replace(folder / name)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return prepared

    def _write(self, draft: Path) -> Prepared:
        card, folder = self.sources.card, self.sources.folder
        table = table_bytes(self.records, self.facts, card.classes)
        (draft / TABLE_FILE).write_bytes(table)
        inside = self.root.is_relative_to(folder)
        prepared = Prepared(
            name=self.sources.name,
            card_version=card.version,
            card_sha256=card_digest(card),
            root=self.root.relative_to(folder).as_posix() if inside else str(self.root),
            images=len(self.records),
            table_sha256=hashlib.sha256(table).hexdigest(),
            counts=self._dataset().by_class(),
            split_seed=_SEED,
            splits={str(scheme): self._write_split(scheme, draft) for scheme in default_schemes(card)},
            differences=_differences(self._dataset()),
            left_out={reason: list(paths) for reason, paths in self.official.left_out.items()},
            skipped=self.skipped,
            clusters=self.clusters,
            remarks=list(self.official.notes),
            source="" if inside or self.sources.user_folder is None else str(self.sources.user_folder.resolve()),
            schema=1,
        )
        (draft / PREPARED_FILE).write_text(json.dumps(prepared.document(), indent=1), encoding="utf-8")
        return prepared

    def _write_split(self, scheme: SplitScheme, draft: Path) -> WrittenSplit:
        dataset = self._dataset()
        sides = assign_splits(dataset.records, scheme, _SEED, classes=dataset.classes, strata=self.task.strata)
        frame = manifest_of(dataset, sides, [self.facts[record.image_id].sha256 for record in dataset.records])
        file = f"{_SPLITS_FOLDER}/{re.sub('[:/]', '-', str(scheme))}.csv"
        write_manifest(frame, draft / file)
        counts: dict[str, dict[str, int]] = {
            side: dataset.by_class(record for record, own in zip(dataset.records, sides, strict=True) if own == side)
            for side in SPLITS
        }
        digests = {"sha256": manifest_digest(frame), "split_sha256": split_digest(frame)}
        return WrittenSplit(file=file, counts=counts, **digests)

    def _dataset(self) -> Dataset:
        return Dataset(self.sources.name, self.sources.card, _Checked(self), {}, self.task)


class _Checked(ImageFiles):
    """The images of a draft, whose checksums are known."""

    def __init__(self, draft: Draft) -> None:
        self.root, self.records, self.classes = draft.root, draft.records, draft.sources.card.classes
        self._facts = draft.facts

    def content_hash(self, record: Record) -> str:
        """Return the SHA-256 of the file's bytes."""
        return self._facts[record.image_id].sha256


def _differences(dataset: Dataset) -> list[str]:
    """Say where the numbers of images are not those that the card knows."""
    table, differences = dataset.card.counts.official, []
    # On which sides the images without a usable label are, no official page says.
    parts = {} if table.left_out else {"train": table.train, "val": table.val, "test": table.test}
    for part, count in {"all": table.images, **parts}.items():
        images = sum(part in ("all", record.split) for record in dataset.records)
        if count is not None and images != count:
            differences.append(f"{part}: {images} images, not {count} as the card says")
    for part, expected in table.classes.items():
        own = dataset.by_class(record for record in dataset.records if part in ("all", record.split))
        other = [f"{name} {own[name]} (card: {count})" for name, count in expected.items() if own[name] != count]
        if other:
            differences.append(f"{part}: {', '.join(other)}")
    return differences
