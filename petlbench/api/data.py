"""Datasets, the cache of preloaded features, and the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petlbench.core.catalog import Folder, Folders, catalog_of
from petlbench.core.environment import default_cache_dir, default_data_root, usable_cores
from petlbench.core.errors import InputError
from petlbench.core.progress_bars import shown_progress
from petlbench.core.user_files import user_path

if TYPE_CHECKING:
    from petlbench.audit.audit import Audit
    from petlbench.data.dataset import Dataset, DatasetInfo
    from petlbench.data.official.prepare import Preparation
    from petlbench.data.official.verify import Verified
    from petlbench.data.overview import Overview
    from petlbench.data.readers.prepared import Prepared
    from petlbench.features.maintenance import FeatureSet, Leftover, Pruned
    from petlbench.features.maintenance import Verified as VerifiedCache
    from petlbench.report.formats import Document

_NO_SETTINGS: Mapping[str, Any] = {}


@dataclass(frozen=True)
class DataFacts:
    """What is known of a dataset.

    Args:
        info: Its card, its settings and its images.
        prepared: What was written down when it was prepared; None where it was not.
        overview: Its classes by split and the sizes of its images; None where these are not there.
    """

    info: DatasetInfo
    prepared: Prepared | None = None
    overview: Overview | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out or is doubtful, and which images cannot be read, in words."""
        dataset, overview = self.info.dataset, self.overview
        return (*(() if dataset is None else dataset.notes), *(() if overview is None else overview.notes))

    def document(self) -> dict[str, Any]:
        """The facts as plain values."""
        info, dataset = self.info, self.info.dataset
        facts = {} if self.overview is None else asdict(self.overview)
        return {
            "name": info.name,
            "card": info.card.model_dump(mode="json"),
            "images": info.images,
            "readable": info.dataset is not None,
            "images_by_class": None if dataset is None else dataset.by_class(),
            "images_by_split": facts.get("by_split"),
            **{name: facts.get(name) for name in ("width", "height", "formats")},
            "prepared": self.prepared.document() if self.prepared is not None else None,
            "settings": dict(info.settings),
            "unreadable": facts.get("unreadable", {}),
            "notes": list(self.notes),
        }


def data_info(
    dataset: str,
    *,
    figure: Folder | None = None,
    settings: Mapping[str, Any] = _NO_SETTINGS,
    data_root: Folder | None = None,
    catalog: Folders = (),
    progress: bool = False,
) -> DataFacts:
    """What is known of a dataset: its card, its classes by split, the sizes of its images.

    Args:
        dataset: A name, a folder of class folders, a CSV file or a card.
        figure: A file in which some images of each class are drawn, .png, .pdf or .svg.
        settings: Settings of the dataset.
        data_root: Folder below which datasets lie; None for ``$PETLBENCH_DATA`` or ``data``.
        catalog: Folders with datasets and readers of your own.
        progress: Whether a bar shows what goes on.

    Raises:
        InputError: When there is no such dataset, or its files are wrong; with a figure, when its images are not there.
    """
    from petlbench.data.dataset import describe_dataset

    info = describe_dataset(dataset, catalog=catalog_of(catalog), data_root=_root(data_root), settings=settings)
    if info.dataset is None:
        if figure is not None:
            message = f"--figure {figure}: the images of '{info.name}' are not there"
            raise InputError(message, hint=f"petlbench data prepare {info.name}", kind="data_missing")
        return DataFacts(info)
    from petlbench.data.overview import draw_contact_sheet, overview_of
    from petlbench.data.readers.prepared import PreparedReader

    reader = info.dataset.reader
    prepared, facts = (reader.prepared, reader.facts) if isinstance(reader, PreparedReader) else (None, {})
    with shown_progress(progress) as shown:
        overview = overview_of(info.dataset, facts, usable_cores(), shown)
        if figure is not None:
            draw_contact_sheet(info.dataset, Path(figure), shown)
    return DataFacts(info, prepared, overview)


def prepare_data(
    dataset: str,
    *,
    settings: Mapping[str, Any] = _NO_SETTINGS,
    data_root: Folder | None = None,
    catalog: Folders = (),
    progress: bool = False,
    **options: Any,
) -> Preparation:
    """A dataset made ready for runs: official files fetched, every image checked, splits written down.

    What both take is as for `data_info`; ``options`` are fields of `petlbench.data.official.prepare.PrepareOptions`:
    ``source`` (a folder that holds the official files), ``mirror``, ``skip_corrupt``, ``again``.

    Raises:
        InputError: When there is nothing to prepare, official files are missing or wrong, or an image cannot be read.
    """
    from petlbench.data.official.prepare import PrepareOptions, prepare_dataset

    with shown_progress(progress) as shown:
        place, own, how = _root(data_root), catalog_of(catalog), PrepareOptions(**options)
        return prepare_dataset(dataset, own, place, settings, how, workers=usable_cores(), progress=shown)


def verify_data(
    dataset: str, *, data_root: Folder | None = None, catalog: Folders = (), progress: bool = False
) -> Verified:
    """Whether every image of a prepared dataset is still the one that was prepared: ``.faults`` is empty then.

    It takes what `data_info` takes, and raises an `InputError` where there is no such dataset, or it was not prepared.
    """
    from petlbench.data.official.verify import verify_dataset

    with shown_progress(progress) as shown:
        return verify_dataset(dataset, catalog_of(catalog), _root(data_root), usable_cores(), shown)


@dataclass(frozen=True)
class DatasetAudit:
    """An audit and the dataset that it is of."""

    audit: Audit
    dataset: Dataset

    def report(self, *, pictures: bool = False) -> Document:
        """The audit as tables, with pictures of pairs where they are asked for."""
        from petlbench.report.kinds.audit import audit_document

        return audit_document(self.audit, self.dataset if pictures else None)


def audit_data(
    dataset: str,
    *,
    split: str | None = None,
    seed: int = 0,
    workers: int = 2,
    settings: Mapping[str, Any] = _NO_SETTINGS,
    data_root: Folder | None = None,
    catalog: Folders = (),
    progress: bool = False,
) -> DatasetAudit:
    """What a reviewer would reject: ``.audit.findings``, ``.audit.grave``, and ``.report()`` as tables.

    The ``split`` is ``official``, ``random``, ``kfold:K/I`` or ``repeat:N/I``, None the card's; ``seed`` is that of
    split, folds and intervals; ``workers`` are threads that decode. All else is as for `data_info`.

    Raises:
        InputError: When the dataset is wrong, or a split that was asked for cannot be made.
    """
    from petlbench.audit.audit import audit
    from petlbench.data.dataset import open_dataset
    from petlbench.data.splits import SplitScheme

    scheme = None if split is None else SplitScheme.parse(split)
    data = open_dataset(dataset, catalog=catalog_of(catalog), data_root=_root(data_root), settings=settings)
    with shown_progress(progress) as shown:
        return DatasetAudit(audit(data, scheme, seed, workers, shown), data)


def cache_info(cache_dir: Folder | None = None) -> tuple[list[FeatureSet], list[Leftover]]:
    """The preloaded features that are kept, one a kind, and what killed processes have left.

    Args:
        cache_dir: Folder of the cache; None for ``$PETLBENCH_CACHE`` or the user's cache folder.
    """
    from petlbench.features.maintenance import list_sets

    return list_sets(_cache(cache_dir))


def verify_cache(cache_dir: Folder | None = None, *, keep: bool = False, progress: bool = False) -> VerifiedCache:
    """Whether every byte of the cache is as it was written: ``.damaged`` is empty then.

    With ``keep``, damaged files stay where they are; ``cache_dir`` is as for `cache_info`.
    """
    from petlbench.features.maintenance import verify

    with shown_progress(progress) as shown:
        return verify(_cache(cache_dir), usable_cores(), keep=keep, progress=shown)


def prune_cache(cache_dir: Folder | None = None, *, cache_size: int | None = None, dry_run: bool = False) -> Pruned:
    """What was deleted: what killed processes have left, and the features that were not used for longest.

    What stays is at most ``cache_size`` bytes; None is for all features. With ``dry_run`` nothing is deleted.
    """
    from petlbench.features.maintenance import prune

    return prune(_cache(cache_dir), cache_size, dry_run=dry_run)


def doctor(
    *, data_root: Folder | None = None, cache_dir: Folder | None = None, output: Folder = "results"
) -> dict[str, dict[str, Any]]:
    """Versions, devices, free memory and disk, and where weights and data would be looked for, by heading."""
    import shutil

    import torch
    from huggingface_hub.constants import HF_HUB_CACHE

    from petlbench.core.environment import describe_environment, free_memory
    from petlbench.core.files import existing_part

    devices: dict[str, Any] = {"cpu": f"{usable_cores()} cores"}
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        devices[f"cuda:{index}"] = f"{torch.cuda.get_device_name(index)}, {free} of {total} bytes free"
    if not torch.cuda.is_available():
        devices["cuda"] = None
    devices["mps"] = "available" if torch.backends.mps.is_available() else None
    environment, cache, results = describe_environment(), _cache(cache_dir), user_path(output, what="--output")
    return {
        "versions": {**{name: environment[name] for name in ("petlbench", "python")}, **environment["packages"]},
        "devices": devices,
        "memory and disk": {
            "host memory free, bytes": free_memory(),
            "host memory, bytes": environment["hardware"]["memory"],
            "disk free for results, bytes": shutil.disk_usage(existing_part(results)).free,
            "disk free for preloaded features, bytes": shutil.disk_usage(existing_part(cache)).free,
        },
        "places": {
            "weights from the hub are kept in": str(HF_HUB_CACHE),
            "datasets are looked for below": str(_root(data_root).absolute()),
            "preloaded features are kept in": str(cache.absolute()),
            "results are written to": str(results.absolute()),
        },
    }


def _root(data_root: Folder | None) -> Path:
    return default_data_root() if data_root is None else user_path(data_root, what="--data-root")


def _cache(cache_dir: Folder | None) -> Path:
    return default_cache_dir() if cache_dir is None else user_path(cache_dir, what="--cache-dir")
