"""Where a run reads and writes, and how it is looked after: nothing here changes a number."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from petlbench.core.catalog import Catalog
from petlbench.core.progress import Progress
from petlbench.features.maintenance import CacheConfig
from petlbench.results.result import Origin
from petlbench.run.image_cache import ImageCache

if TYPE_CHECKING:
    from petlbench.run.parts import Parts

MeasureInference = Literal["auto", "full", "off"]
"""How prediction is measured: for little, in full and anew, or not at all."""


@dataclass(frozen=True)
class RunOptions:
    """Where a run reads and writes, and how it is looked after: plain data that goes to other processes.

    Args:
        output: Folder of all results.
        data_root: Folder below which the images of cards lie.
        cache_dir: Folder of the feature cache.
        catalogs: Folders of the user's own catalogues.
        tracking_uri: MLflow's address, ``none``, or None for the default.
        workers: Threads that decode images.
        rerun: Run again even when a finished result stands.
        accept: Take a finished result although what it depends on has changed.
        verify: Read all that a finished result depends on, where times and sizes of files would tell, too.
        cache_size: Largest size of the feature cache in bytes; None for no bound.
        cache_images: Where decoded and resized images are kept.
        measure_inference: How prediction is measured.
        reveal_test: Whether the test split is read at the end; a trial of a search never does.
        experiment: The name under which MLflow keeps the runs of a study together.
        group: The parent of the run in that experiment, such as ``fpt on isic2018``; empty for none.
        origin: The protocol, recipe or sweep that settings are from, for the result to say; None for none.
    """

    output: Path
    data_root: Path
    cache_dir: Path
    catalogs: tuple[Path, ...] = ()
    tracking_uri: str | None = None
    workers: int = 2
    rerun: bool = False
    accept: bool = False
    verify: bool = False
    cache_size: int | None = None
    cache_images: ImageCache = "ram"
    measure_inference: MeasureInference = "auto"
    reveal_test: bool = True
    experiment: str = "petlbench"
    group: str = ""
    origin: Origin | None = None

    @property
    def cache(self) -> CacheConfig:
        """The feature cache."""
        return CacheConfig(self.cache_dir, self.cache_size)


@dataclass(frozen=True)
class RunContext:
    """What goes along with a run from the command line to its end, beside the run itself.

    Args:
        options: Where it reads and writes.
        progress: Told how far it is.
        kept_parts: What its process keeps between runs; None for a run that is alone.
    """

    options: RunOptions
    progress: Progress = field(default_factory=Progress)
    kept_parts: Parts | None = None

    @cached_property
    def parts(self) -> Parts:
        """Where datasets, images, backbones and features come from."""
        from petlbench.run.parts import Parts

        return self.kept_parts or Parts()

    @cached_property
    def catalog(self) -> Catalog:
        """The catalogues: the shipped ones and the user's own."""
        return self.parts.catalog(self.options.catalogs)
