"""Distillation: it learns, it goes on where it was stopped, and what comes out is the backbone's weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from petlbench.core.progress import Progress
from petlbench.models.registry import build_backbone
from tools.pretraining.distill import Recipe, distill
from tools.pretraining.drawing import SIZE
from tools.pretraining.teacher import TARGETS

RECIPE = Recipe(epochs=3, batch_size=8)


class Colours:
    """A pool whose teacher says how red an image is, everywhere."""

    def __len__(self) -> int:
        return 24

    def batch(self, rows: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        red = (rows.float() / 12 - 1)[:, None]
        pixels = torch.zeros(len(rows), 3, SIZE, SIZE)
        pixels[:, 0] = red[:, :, None]
        tokens = red[:, :, None, None].expand(-1, *TARGETS["tokens"])
        return pixels, {"image": red.expand(-1, *TARGETS["image"]), "tokens": tokens}


class Stops(Progress):
    """Asks for an end after some epochs, and keeps what is said."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)
        if len(self.said) == self.epochs:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("trained")
    progress = Stops(99)
    distill(Colours(), RECIPE, folder, folder / "weights.safetensors", progress)  # type: ignore[arg-type]
    return folder / "weights.safetensors", progress.said


def test_it_learns(trained: tuple[Path, list[str]]) -> None:
    losses = [float(line.rsplit(" ", 1)[1]) for line in trained[1]]
    assert len(losses) == RECIPE.epochs
    assert losses[-1] < 0.5 * losses[0]


def test_what_was_stopped_goes_on_to_the_same_weights(trained: tuple[Path, list[str]], tmp_path: Path) -> None:
    output = tmp_path / "weights.safetensors"
    with pytest.raises(KeyboardInterrupt):
        distill(Colours(), RECIPE, tmp_path, output, Stops(2))  # type: ignore[arg-type]
    assert not output.exists()
    rest = Stops(99)
    distill(Colours(), RECIPE, tmp_path, output, rest)  # type: ignore[arg-type]
    assert rest.said == trained[1][2:]
    assert output.read_bytes() == trained[0].read_bytes()


def test_another_recipe_does_not_go_on_from_it(trained: tuple[Path, list[str]], tmp_path: Path) -> None:
    other = Recipe(epochs=1, batch_size=8, seed=1)
    distill(Colours(), other, tmp_path, tmp_path / "other.safetensors", Stops(99))  # type: ignore[arg-type]
    afresh = Stops(99)
    distill(Colours(), RECIPE, tmp_path, tmp_path / "weights.safetensors", afresh)  # type: ignore[arg-type]
    assert afresh.said == trained[1]


def test_the_weights_are_those_of_the_backbone_in_half_precision(trained: tuple[Path, list[str]]) -> None:
    assert {tensor.dtype for tensor in load_file(trained[0]).values()} == {torch.float16}
    backbone = build_backbone("petlbench_micro.distilled", 64, str(trained[0]), torch.device("cpu"))
    assert backbone.pooled(torch.zeros(1, 3, 64, 64)).shape == (1, 192)
