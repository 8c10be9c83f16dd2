"""From official files to a dataset that was checked once: a table of its images, and a manifest for every split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.core.files import check_writable
from petlbench.core.progress import Progress
from petlbench.data.dataset import describe_dataset, find_card, official_files, open_dataset
from petlbench.data.official.draft import Draft
from petlbench.data.official.fetch import DOWNLOADS, FILES, Sources, gather, place_files
from petlbench.data.official.read import OfficialImages, read_official
from petlbench.data.readers.prepared import Prepared, other_card, read_prepared
from petlbench.data.record import Record, images_by_class
from petlbench.data.tasks.base import TaskType, task_of

__all__ = ["Preparation", "PrepareOptions", "holding", "prepare_dataset"]

_LOCK = ".lock"


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
    if settings:
        describe_dataset(reference, catalog=catalog, data_root=data_root, settings=settings)
    source = options.source.expanduser() if options.source is not None else None
    sources = Sources(name, card, (data_root / name).resolve(), source, options.mirror, progress)
    check_writable(sources.folder, what="data folder", option="--data-root")
    with holding(sources.folder, name):
        if card.layout is not None:
            task = task_of(name, card, catalog)
            return _prepare_layout(sources, task, workers, options)
        files = place_files(sources, official_files(reference, catalog=catalog, data_root=data_root, settings=settings))
    dataset = open_dataset(reference, catalog=catalog, data_root=data_root, settings=settings)
    return Preparation(name, sources.folder, len(dataset.records), True, None, files, card.unverified)


def _prepare_layout(sources: Sources, task: TaskType, workers: int, options: PrepareOptions) -> Preparation:
    unverified = sources.card.unverified
    before = None
    with suppress(InputError) if options.again else nullcontext():  # made anew, whatever was wrong with it
        before = read_prepared(sources.folder)
    if before is not None and not options.again:
        if before.card_version != sources.card.version:
            raise other_card(before, sources.card)
        return Preparation(sources.name, sources.folder, before.images, False, before, (), unverified)
    if before is not None and before.source and sources.user_folder is None:
        # Images that were left in the user's folder are taken from there again where no other is named.
        sources = replace(sources, user_folder=Path(before.source))

    def readable(folder: Path) -> bool:
        with suppress(InputError):
            return bool(read_official(sources.card, folder, sources.name).records)
        return False

    root = gather(sources, readable, anew=options.again)
    official = _read(sources, root, task)
    draft = Draft(sources, *_as_published(root, official), official, task)
    draft.check_images(workers, options.skip_corrupt)
    draft.group_duplicates(workers)
    prepared = draft.publish()
    return Preparation(sources.name, sources.folder, prepared.images, True, prepared, (), unverified)


@contextmanager
def holding(folder: Path, name: str) -> Iterator[None]:
    """Keep a dataset's folder to this process; what stays of it when nothing was made is nothing.

    Raises:
        InputError: When another process has it.
    """
    from filelock import FileLock, Timeout

    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK, timeout=0)
    try:
        with lock:
            yield
            (folder / _LOCK).unlink(missing_ok=True)
    except Timeout as error:
        raise InputError(
            f"another process prepares '{name}' in {folder} now",
            hint="wait for its end and call again",
            kind="busy",
        ) from error
    except BaseException:
        (folder / _LOCK).unlink(missing_ok=True)
        for path in (folder / DOWNLOADS, folder / FILES, *new):
            with suppress(OSError):  # there is something in it
                path.rmdir()
        raise


def _read(sources: Sources, root: Path, task: TaskType) -> OfficialImages:
    official = read_official(sources.card, root, sources.name, progress=sources.progress)
    for name, count in images_by_class(official.records, sources.card.classes, task.labels).items():
        if not count:
            raise InputError(
                f"{root} has no image of the class '{name}' of '{sources.name}'",
                hint="put all of the official files there",
                kind="class_mismatch",
            )
    return official


def _as_published(root: Path, official: OfficialImages) -> tuple[Path, tuple[Record, ...]]:
    """Take the paths that the release itself gives its images, so that all who prepare it get the same manifest.

    Returns:
        The folder that the paths are relative to, and the records.
    """
    path = official.records[0].path
    name = official.names[path]
    folder = root.parent if len(name) > len(path) else root / path.removesuffix(name)
    names = [official.names[record.path] for record in official.records]
    records = zip(official.records, names, strict=True)
    return folder, tuple(replace(record, image_id=name, path=name) for record, name in records)
