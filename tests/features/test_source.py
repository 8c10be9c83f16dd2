"""Features fetched ahead of their use: the same ones, wherever they were fetched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from petlbench.data.loader import Batch
from petlbench.features.source import CachedFeatures, NoFeatures, fetched_ahead

NAMES = ["a", "b", "c", "d", "e"]


class Store:
    """Gives each image a number, and notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def rows(self, images: Sequence[str]) -> dict[str, Tensor]:
        self.asked.append(list(images))
        return {"final": torch.tensor([[float(NAMES.index(image))] for image in images])}


def cached(store: Store, device: str = "cpu") -> CachedFeatures:
    live: Any = type("Live", (), {"spec": type("Spec", (), {"view": "fine"})})()
    source: Any = CachedFeatures(live, store, NAMES, "fp32", torch.device(device))  # type: ignore[arg-type]
    source.shared = {}
    made: CachedFeatures = source
    return made


def batches() -> Iterator[Batch]:
    for positions in ([3, 0], [4, 1], [2]):
        yield Batch(torch.tensor(positions), {}, torch.tensor(positions))


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What was pinned, on a machine that need not be able to."""
    tensors: list[Tensor] = []

    def pin(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    return tensors


def test_what_was_fetched_ahead_is_what_is_fetched_in_time(pinned: list[Tensor]) -> None:
    store = Store()
    source = cached(store)
    for batch in batches():
        fetched = source.fetch(batch)
        assert len(store.asked) == 1
        assert torch.equal(source(fetched).features["final"], source(batch).features["final"])
        assert len(store.asked) == 2  # what was fetched is not fetched again
        store.asked.clear()
    assert len(pinned) == 3


def test_for_cuda_each_batch_brings_its_features(pinned: list[Tensor]) -> None:
    found = list(fetched_ahead(batches(), cached(Store(), "cuda")))
    assert [batch.index.tolist() for batch in found] == [[3, 0], [4, 1], [2]]
    assert [batch.features["final"].flatten().tolist() for batch in found] == [[3, 0], [4, 1], [2]]


@pytest.mark.parametrize("source", [NoFeatures(), cached(Store())])
def test_elsewhere_batches_stay_as_they_are(source: Any) -> None:
    assert all(not batch.features for batch in fetched_ahead(batches(), source))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_features_come_from_pinned_memory() -> None:
    source = cached(Store(), "cuda")
    found = list(fetched_ahead(batches(), source))
    assert all(rows.is_pinned() for batch in found for rows in batch.features.values())
    for fetched, batch in zip(found, batches(), strict=True):
        assert torch.equal(source(fetched).features["final"].cpu(), source(batch).features["final"].cpu())
