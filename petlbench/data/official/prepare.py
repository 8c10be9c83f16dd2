"""From official files to a dataset that was checked once: a table of its images, and a manifest for every split."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig
from petlbench.core.errors import InputError
from petlbench.core.file_lock import locked
from petlbench.core.files import check_writable
from petlbench.core.progress import Progress
from petlbench.data.dataset import Dataset, find_card, official_files, open_dataset
from petlbench.data.duplicates import near_duplicate_groups
from petlbench.data.images.files import ImageFacts, read_facts
from petlbench.data.manifest import Manifest, manifest_of
from petlbench.data.notes import lossy_copy
from petlbench.data.official.fetch import DOWNLOADS, FILES, Sources, gather, place_files
from petlbench.data.official.read import OfficialImages, read_official
from petlbench.data.readers.base import ImageFiles
from petlbench.data.readers.prepared import (
    PREPARED_FILE,
    TABLE_FILE,
    Prepared,
    WrittenSplit,
    card_digest,
    other_card,
    read_prepared,
    table_bytes,
)
from petlbench.data.record import Record, images_by_class, map_images, refusal
from petlbench.data.splits import SplitScheme, assign_splits
from petlbench.data.tasks.base import TaskType, task_of

_LOCK = ".lock"
_SPLITS_FOLDER = "splits"
_DRAFT = ".preparing"
_SEED: int = RunConfig.model_fields["split_seed"].default


@dataclass(frozen=True)
class Preparation:
    """What came of preparing.

    Args:
        name: The dataset's name.
        folder: Its folder below the data root.
        images: Number of its images.
        new: Whether something was done; not where it was prepared before.
        prepared: What was written down; None for a dataset that is read from its official file as it is.
        files: The official files of such a dataset.
        unverified: Facts of its card that nobody has checked on the real files yet.
    """

    name: str
    folder: Path
    images: int
    new: bool
    prepared: Prepared | None = None
    files: Sequence[Path] = ()
    unverified: Sequence[str] = ()


@dataclass(frozen=True)
class PrepareOptions:
    """Where official files come from, and how they are taken.

    Args:
        source: Folder with the official files, as archives or unpacked.
        mirror: Address of a folder with the same files, in place of the official addresses.
        skip_corrupt: Whether images that cannot be read are left out.
        again: Whether a prepared dataset is prepared anew.
    """

    source: Path | None = None
    mirror: str | None = None
    skip_corrupt: bool = False
    again: bool = False


def prepare_dataset(
    reference: str,
    catalog: Catalog,
    data_root: Path,
    settings: Mapping[str, str],
    options: PrepareOptions,
    *,
    workers: int,
    progress: Progress,
) -> Preparation:
    """Make a dataset ready for runs.

    Args:
        reference: A name in the catalogue, or the path of a card.
        catalog: The catalogues.
        data_root: The folder below which datasets lie.
        settings: The reader's settings that differ from the card's, by name.
        options: Where the files come from, and how they are taken.
        workers: Threads that read images.
        progress: Told what goes on.

    Raises:
        InputError: When there is nothing to prepare, official files are missing or wrong, an image cannot be read,
            the dataset cannot be split, or it was prepared by another version of its card.
    """
    name, card = find_card(reference, catalog=catalog)
    if card is None or (card.layout is None and not card.files):
        raise InputError(
            f"the dataset '{name}' needs no preparing: it has no official files that would have to be fetched",
            hint=f"petlbench data info {reference}",
            kind="nothing_to_prepare",
        )
    official = official_files(reference, catalog=catalog, data_root=data_root, settings=settings)
    source = options.source.expanduser() if options.source is not None else None
    sources = Sources(name, card, (data_root / name).resolve(), source, options.mirror, progress)
    check_writable(sources.folder, what="data folder", option="--data-root")
    with _holding(sources.folder, name):
        if card.layout is not None:
            task = task_of(card, catalog)
            return _prepare_layout(sources, task, workers, options)
        files = place_files(sources, official)
    dataset = open_dataset(reference, catalog=catalog, data_root=data_root, settings=settings)
    return Preparation(name, sources.folder, len(dataset.records), True, None, files, card.unverified)


def _prepare_layout(sources: Sources, task: TaskType, workers: int, options: PrepareOptions) -> Preparation:
    unverified = sources.card.unverified
    before = None
    with suppress(InputError) if options.again else nullcontext():  # made anew, whatever was wrong with it
        before = read_prepared(sources.folder, sources.name)
    if before is not None and not options.again:
        if before.card_version != sources.card.version:
            raise other_card(before, sources.card)
        return Preparation(sources.name, sources.folder, before.images, False, before, (), unverified)
    if before is not None and before.source and sources.user_folder is None:
        # Images that were left in the user's folder are taken from there again where no other is named.
        sources = replace(sources, user_folder=Path(before.source))

    def readable(folder: Path) -> bool:
        with suppress(InputError):
            return bool(read_official(sources.card, folder, sources.name, task.labels).records)
        return False

    root = gather(sources, readable, anew=options.again)
    official = _read(sources, root, task)
    draft = _Draft(sources, *_as_published(official), official, task)
    draft.check_images(workers, options.skip_corrupt)
    draft.group_duplicates(workers)
    prepared = draft.publish()
    return Preparation(sources.name, sources.folder, prepared.images, True, prepared, (), unverified)


@contextmanager
def _holding(folder: Path, name: str) -> Iterator[None]:
    """Keep a dataset's folder to this process; what stays of it when nothing was made is nothing."""
    from filelock import Timeout

    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder / _LOCK, 0):
            yield
    except Timeout as error:
        raise InputError(
            f"another process prepares '{name}' in {folder} now",
            hint="wait for its end and call again",
            kind="busy",
        ) from error
    except BaseException:
        for path in (folder / DOWNLOADS, folder / FILES, *new):
            with suppress(OSError):  # there is something in it
                path.rmdir()
        raise


def _read(sources: Sources, root: Path, task: TaskType) -> OfficialImages:
    official = read_official(sources.card, root, sources.name, task.labels, progress=sources.progress)
    for name, count in images_by_class(official.records, sources.card.classes, task.labels).items():
        if not count:
            raise InputError(
                f"{root} has no image of the class '{name}' of '{sources.name}'",
                hint="put all of the official files there",
                kind="class_mismatch",
            )
    return official


def _as_published(official: OfficialImages) -> tuple[Path, tuple[Record, ...]]:
    """The images' folder, and records with the paths of the release itself: all who prepare it get one manifest."""
    root, path = official.root, official.records[0].path
    name = official.names[path]
    folder = root.parent if len(name) > len(path) else root / path.removesuffix(name)
    names = [official.names[record.path] for record in official.records]
    records = zip(official.records, names, strict=True)
    return folder, tuple(replace(record, image_id=name, path=name) for record, name in records)


@dataclass(eq=False)
class _Draft:
    """A dataset on its way to be prepared: images checked, near duplicates put together, splits written down.

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
        """Read every image once: decode it, measure it, hash it."""
        self.facts, errors = map_images(
            self.records,
            lambda record: read_facts(self.root / record.path),
            workers,
            self.sources.progress,
            phase="checking images",
        )
        if errors and not skip_corrupt:
            hint = "or get the official files again, or leave unreadable images out and count them with --skip-corrupt"
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
        """Write table, manifests and ``prepared.json``; the last of these makes the dataset prepared."""
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
        table = table_bytes(self.records, self.facts, card.classes, self.task.labels)
        (draft / TABLE_FILE).write_bytes(table)
        inside = self.root.is_relative_to(folder)
        # The splits of the card's default protocol: all parts where it has parts.
        scheme = SplitScheme.parse(card.split)
        schemes = [replace(scheme, index=index) for index in range(scheme.parts)] or [scheme]
        prepared = Prepared(
            name=self.sources.name,
            card_version=card.version,
            card_sha256=card_digest(card),
            root=self.root.relative_to(folder).as_posix() if inside else str(self.root),
            images=len(self.records),
            table_sha256=hashlib.sha256(table).hexdigest(),
            counts=self._dataset().by_class(),
            split_seed=_SEED,
            splits={str(scheme): self._write_split(scheme, draft) for scheme in schemes},
            differences=_differences(self._dataset()),
            left_out={reason: list(paths) for reason, paths in self.official.left_out.items()},
            skipped=self.skipped,
            clusters=self.clusters,
            remarks=[*self.official.notes, *lossy_copy(card.lossless, self.facts.values())],
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
        manifest = Manifest(frame)
        manifest.write(draft / file)
        digests = {"sha256": manifest.digest, "split_sha256": manifest.split_digest}
        return WrittenSplit(file=file, counts=dataset.by_side(sides), **digests)

    def _dataset(self) -> Dataset:
        return Dataset(self.sources.name, self.sources.card, _Checked(self), {}, self.task)


class _Checked(ImageFiles):
    """The images of a draft, whose checksums are known."""

    def __init__(self, draft: _Draft) -> None:
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
