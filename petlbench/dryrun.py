"""What a run would take, without images, weights or training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from petlbench.assemble import Assembled, assemble, count_parameters
from petlbench.catalog import Catalog
from petlbench.config import RunConfig
from petlbench.data.dataset import describe_dataset
from petlbench.features.precision import stored_tensors
from petlbench.memory.predict import predict_training
from petlbench.result import Memory, Parameters

__all__ = ["DryRun", "dry_run"]


@dataclass(frozen=True)
class DryRun:
    """What a run would take.

    Args:
        config: The run.
        parameters: Its exact counts.
        memory: The predicted peak of its training step.
        bytes_per_image: Size of one image's preloaded features in bytes; None where nothing is preloaded.
        bytes: Size of all of them; None where nothing is preloaded or the number of images is not known.
    """

    config: RunConfig
    parameters: Parameters
    memory: Memory
    bytes_per_image: int | None
    bytes: int | None

    def document(self) -> dict[str, Any]:
        """The dry run as plain values."""
        return {
            "run_id": self.config.run_id,
            "config": self.config.model_dump(mode="json"),
            "parameters": self.parameters.model_dump(mode="json"),
            "memory": self.memory.model_dump(mode="json"),
            "feature_cache": {"bytes_per_image": self.bytes_per_image, "bytes": self.bytes},
        }


def dry_run(config: RunConfig, catalog: Catalog, data_root: Path) -> DryRun:
    """Build a run on device ``meta``, count its parameters and predict its memory.

    Args:
        config: The run.
        catalog: The catalogues.
        data_root: The folder below which the images of cards lie; they need not be there.
    """
    described = describe_dataset(config.dataset, catalog=catalog, data_root=data_root, settings=config.dataset_settings)
    assembled = assemble(config, catalog, len(described.classes), torch.device("meta"))
    each = _bytes_per_image(config, assembled)
    return DryRun(
        config=config,
        parameters=count_parameters(assembled),
        memory=predict_training(config, assembled),
        bytes_per_image=each,
        bytes=each * described.images if each is not None and described.images is not None else None,
    )


def _bytes_per_image(config: RunConfig, assembled: Assembled) -> int | None:
    if assembled.frozen is None or config.cache_precision is None:
        return None
    stored = stored_tensors(assembled.frozen.spec(assembled.backbone.info), config.cache_precision)
    return sum(spec.bytes for spec in stored.values())
