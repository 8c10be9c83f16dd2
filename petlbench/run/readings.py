"""How test splits are read: each reading logged, and kept on the disk until the result of the run stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from petlbench.core.files import write_atomically, write_tensors
from petlbench.core.progress import Progress
from petlbench.data.loader import ImageLoader
from petlbench.results.journal import CONTINUED
from petlbench.training.evaluation import Labels, Logits, Predictor, TestSplit

Outputs = tuple[Labels, Logits]


@dataclass(frozen=True)
class KeptReadings:
    """What a run has read of its test splits, on the disk until its result stands: no attempt reads them again.

    Args:
        file: A safetensors file.
        identity: What made it; of another identity there is nothing.
    """

    file: Path
    identity: str

    def once(self, split: str, read: Callable[[bool], Outputs]) -> Outputs:
        """Labels (N,) and logits (N, C) of a split: those that are kept, or else what is read, which is kept.

        Args:
            split: Its name.
            read: Reads it; told whether an attempt before has begun to, of which nothing was kept.
        """
        begun, outputs = self._load()
        if split not in outputs:
            self._keep(begun | {split}, outputs)
            outputs[split] = read(split in begun)
            self._keep(begun | {split}, outputs)
        return outputs[split]

    def _keep(self, begun: Set[str], outputs: Mapping[str, Outputs]) -> None:
        """Write what there is, whole or not at all."""
        tensors: dict[str, torch.Tensor] = {}
        for split, (labels, logits) in outputs.items():
            tensors |= {f"labels/{split}": torch.from_numpy(labels), f"logits/{split}": torch.from_numpy(logits)}
        with write_atomically(self.file) as temporary:
            write_tensors(temporary, tensors, {"identity": self.identity, "begun": ",".join(sorted(begun))})

    def _load(self) -> tuple[Set[str], dict[str, Outputs]]:
        """The splits whose reading was begun, and what is kept; none where there is no whole file of this identity."""
        try:
            with safe_open(self.file, "np") as opened:
                about = opened.metadata() or {}
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - it is no mapping
        except (OSError, SafetensorError):
            return frozenset(), {}
        if about.get("identity") != self.identity:
            return frozenset(), {}
        begun = frozenset(about.get("begun", "").split(","))
        return begun, {
            split: (tensors[f"labels/{split}"], tensors[f"logits/{split}"])
            for split in begun
            if f"labels/{split}" in tensors
        }


@dataclass(frozen=True)
class TestReader:
    """Reads a test split of a run; every reading is a line of the log.

    Args:
        predictor: Runs the module on it.
        log: JSON lines file of all readings.
        identity: What is read: dataset, split digest and run id.
        progress: Told how far a reading is.
        is_hidden: Whether nobody may read it, as in the trials of a search.
    """

    __test__ = False  # not a test class, whatever its name begins with

    predictor: Predictor
    log: Path
    identity: Mapping[str, str]
    progress: Progress
    is_hidden: bool = False

    def read_once(self, loader: ImageLoader, was_broken_off: bool) -> Outputs:
        """Labels (N,) and logits (N, C) at the end of a run; the log says where an attempt before was broken off."""
        return self._read(loader, {CONTINUED: "nothing was kept of the reading before"} if was_broken_off else {})

    def read_after(self, loader: ImageLoader, epoch: int) -> Outputs:
        """Labels (N,) and logits (N, C) after an epoch (from 1), which the log names."""
        return self._read(loader, {"epoch": str(epoch)})

    def _read(self, loader: ImageLoader, why: Mapping[str, str]) -> Outputs:
        images = TestSplit(loader, self.log, {**self.identity, **why}, is_hidden=self.is_hidden).read()
        self.progress.phase("test", len(images.indices))
        return self.predictor(images, self.progress.advance)
