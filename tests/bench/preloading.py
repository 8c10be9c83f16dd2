"""Preloading against the naive reference beside this file: FPT and FPT+ on ViT-B/16 at 512 pixels, random weights.

Bytes an image, extraction, the training step with the loading of its features, and the step's peak memory, each as a
ratio within one run; then tokens that all heads keep, over keys and values of the same ones. The floor is the time that
this machine takes for the matrix products alone.
``python -m tests.bench.preloading extraction`` prints the rows whose name begins so.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property, partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig
from petlbench.core.environment import keep_freed_memory
from petlbench.core.request import Request
from petlbench.data.loader import Batch
from petlbench.features.frozen import CacheForm, in_form
from petlbench.features.products import PackedWeights, fast_linear
from petlbench.features.quantization import compact, stored_tensors
from petlbench.features.source import CachedFeatures, LiveFeatures, extraction_batch
from petlbench.features.store import FeatureStore
from petlbench.memory.predict import predict_training
from petlbench.models.build import Assembled, assemble
from petlbench.models.method import FeatureSpec, Inputs, configured_method
from petlbench.models.precision import autocast
from petlbench.run.resolve import resolve
from petlbench.training.step import new_step
from tests.bench.naive import NaiveFPT, extract, load_features, save_features
from tests.bench.turns import in_turns, seconds

BACKBONE, SIZE, BATCH, CLASSES = "vit_base_patch16_384", 512, 16, 7
METHODS = ("fpt", "fpt_plus")
# Enough for batches that differ, few enough for any disk.
IMAGES = 3 * BATCH
CATALOG = Catalog()

# A ratio, and what petlbench and the naive form came to.
Row = tuple[float | None, str, str]


def configure(method: str, device: str = "cpu", **asked: Any) -> RunConfig:
    request = Request(
        method, "isic2018", backbone=BACKBONE, weights="none", image_size=SIZE, device=device, threads=1, **asked
    )
    return resolve(request, CATALOG, Path()).config


def in_common(form: CacheForm | None) -> dict[str, Any]:
    """What a run asks for that keeps its features in one of the forms, of tokens that all heads keep."""
    return {"cache_form": form, "method_settings": {"token_score": "all_heads"}} if form is not None else {}


@dataclass
class Pair:
    """A method of petlbench and its naive form, with the same values in all parameters."""

    method: str
    device: torch.device
    form: CacheForm | None = None

    @cached_property
    def config(self) -> RunConfig:
        return configure(
            self.method, self.device.type if self.device.type != "meta" else "cuda", **in_common(self.form)
        )

    def assembled(self) -> Assembled:
        return assemble(self.config, configured_method(self.config, CATALOG), CLASSES, self.device)

    @cached_property
    def ours(self) -> Assembled:
        return self.assembled()

    @cached_property
    def frozen(self) -> Any:
        """What petlbench takes from the backbone."""
        return in_form(self.ours.frozen, self.form or "keys_values") if self.ours.frozen is not None else None

    @cached_property
    def spec(self) -> FeatureSpec:
        spec: FeatureSpec = self.frozen.spec(self.ours.backbone.info)
        return spec

    def naive(self) -> NaiveFPT:
        module, info = self.assembled().adapted.module, self.ours.backbone.info
        side: Any = module.side
        layers, prompts, prompt_width = module.get_parameter("fusion.prompts").shape
        made = NaiveFPT(
            side,
            layers=layers,
            prompts=prompts,
            prompt_width=prompt_width,
            width=info.width,
            heads=info.heads,
            dropout=0.5,
        ).to(self.device)
        made.load_state_dict(self.ours.adapted.module.state_dict())
        return made


def products_per_second(precision: str = "fp32") -> float:
    """What this machine reaches in a matrix product of the backbone's kind, in operations a second, at its best."""
    layer, tokens, packed = nn.Linear(768, 3072).requires_grad_(False), torch.randn(1025, 768), PackedWeights()

    def multiply() -> None:
        with autocast(tokens.device, precision), fast_linear(tokens.device, precision, packed):
            layer(tokens)

    return 2 * 1025 * 768 * 3072 / min(seconds(multiply) for _ in range(20))


def extraction_products(layers: Sequence[int], width: int = 768, tokens: int = 1025) -> int:
    """Operations of all matrix products in front of the last layer's keys and values, its probabilities included."""
    matrices, attention = 24 * tokens * width**2, 4 * tokens**2 * width
    return max(layers) * (matrices + attention) + 6 * tokens * width**2 + attention // 2


def bytes_an_image(pair: Pair) -> tuple[float, int, int]:
    ours = sum(spec.bytes for spec in stored_tensors(pair.spec, pair.config.cache_precision or "fp32").values())
    naive = pair.ours.frozen.spec(pair.ours.backbone.info).bytes_per_image if pair.ours.frozen is not None else 0
    return ours / naive, ours, naive


def extraction(
    pair: Pair, precision: str, rounds: int, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, float, float]:
    """An image's features as a run extracts them, over the naive way; seconds an image."""
    live = LiveFeatures(pair.ours.backbone, pair.frozen, precision)
    size = extraction_batch(pair.ours.backbone.info, "cpu")
    fine = torch.randn(size, 3, SIZE, SIZE)
    batch = Batch(torch.arange(size), {"fine": fine}, torch.zeros(size, dtype=torch.long))

    def ours() -> None:
        compact(live.extract(batch), pair.config.cache_precision or "fp32")

    def naive() -> None:
        with torch.no_grad():
            extract(pair.ours.backbone.module, fine, pair.frozen.layers, pair.frozen.ratio)

    with live.at_length():
        ratio, mine, theirs = in_turns(ours, naive, rounds, clock)
    return ratio, mine / size, theirs / size


def random_features(pair: Pair, position: int) -> dict[str, Tensor]:
    chance = torch.Generator().manual_seed(position)
    return {name: torch.randn(1, *spec.shape, generator=chance) for name, spec in pair.spec.tensors.items()}


def stored(pair: Pair, folder: Path) -> CachedFeatures:
    """Random features in a store, which are made if they are not there."""
    precision = pair.config.cache_precision or "fp32"
    store = FeatureStore(folder / "store", stored_tensors(pair.spec, precision))

    def make(positions: Sequence[int]) -> dict[str, Tensor]:
        parts = [compact(random_features(pair, position), precision) for position in positions]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    images = [str(number) for number in range(IMAGES)]
    store.fill(images, make)
    return CachedFeatures(LiveFeatures(pair.ours.backbone, pair.frozen, "fp32"), store, images, precision, pair.device)


def save_naively(pair: Pair, folder: Path) -> None:
    """The same features in the naive form's files."""
    for position in range(IMAGES):
        made = random_features(pair, position)
        save_features(folder, position, made["keys"], made["values"])


def batches(pair: Pair) -> Iterator[Batch]:
    """Endless batches in random order, their coarse views ready."""
    coarse = pair.ours.method.views(pair.ours.backbone.info, SIZE)["coarse"].size
    images, chance = torch.randn(BATCH, 3, coarse, coarse), torch.Generator().manual_seed(0)
    while True:
        for index in torch.randperm(IMAGES, generator=chance).split(BATCH):
            yield Batch(index, {"coarse": images}, torch.randint(CLASSES, (BATCH,), generator=chance))


def our_step(pair: Pair, folder: Path) -> Callable[[], object]:
    keep_freed_memory()  # as a run does
    step = new_step(pair.config, pair.ours.adapted, stored(pair, folder), None)
    pair.ours.adapted.module.train()
    coming = batches(pair)
    return lambda: step(next(coming))


def naive_step(pair: Pair, folder: Path) -> Callable[[], object]:
    save_naively(pair, folder)
    module = pair.naive().train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.1)
    coming = batches(pair)

    def step() -> None:
        batch = next(coming)
        keys, values = load_features(folder, batch.index.tolist())
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(batch.views["coarse"], keys, values), batch.labels).backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()

    return step


Make = Callable[[Pair, Path], Callable[[], object]]

_action: Callable[[], object]


def set_up(make: Make, pair: Pair, threads: int, folder: Path) -> None:
    """Make this process ready to act."""
    global _action  # noqa: PLW0603  # what a worker process is for
    torch.set_num_threads(threads)
    _action = make(pair, folder)


def act() -> None:
    _action()


def training_step(method: str, threads: int, rounds: int) -> tuple[float, float, float]:
    """A step with the loading of its features, over the naive one; seconds a step."""
    pair = Pair(method, torch.device("cpu"))
    return steps_in_turns(((our_step, pair), (naive_step, pair)), threads, rounds)


def steps_in_turns(forms: Sequence[tuple[Make, Pair]], threads: int, rounds: int) -> tuple[float, float, float]:
    """A step over another one; seconds a step.

    Each form has a process of its own, as a run has: what one frees changes how fast the other gets memory.
    """
    with TemporaryDirectory() as name, ExitStack() as processes:
        pools = []
        for number, (make, pair) in enumerate(forms):
            (folder := Path(name) / str(number)).mkdir()
            asked = (make, pair, threads, folder)
            pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=set_up, initargs=asked)
            pools.append(processes.enter_context(pool))
        one, other = pools
        return in_turns(lambda: one.submit(act).result(), lambda: other.submit(act).result(), rounds)


def step_products(pair: Pair) -> int:
    """Operations of all matrix products of a training step, counted."""
    with TemporaryDirectory() as folder:
        step = our_step(pair, Path(folder))
        of_onednn = {torch.ops.mkldnn._linear_pointwise: _operations}
        with FlopCounterMode(display=False, custom_mapping=of_onednn) as counter:
            step()
    return counter.get_total_flops()


def _operations(rows: Sequence[int], columns: Sequence[int], *_: Any, **__: Any) -> int:
    """Those of oneDNN's product of rows (M, d) and columns (N, d), which torch does not count by itself."""
    return 2 * rows[0] * columns[0] * rows[1]


def peak_memory(method: str) -> tuple[float, float, float]:
    """Predicted peak of the training step on CUDA, allocated, over that of the naive form; MiB."""
    pair = Pair(method, torch.device("meta"))
    config = configure(method, "cuda")
    assembled = assemble(config, configured_method(config, CATALOG), CLASSES, pair.device)
    plain = config.model_copy(update={"cache_precision": "fp32", "attention_kernel": "eager"})
    adapted = replace(assembled.adapted, module=_TakesInputs(pair.naive()))
    adapted = replace(adapted, learnable=frozenset(name for name, _ in adapted.module.named_parameters()))
    ours = predict_training(config, assembled).allocated
    naive = predict_training(plain, replace(assembled, adapted=adapted)).allocated
    return ours / naive, ours / 2**20, naive / 2**20


class _TakesInputs(nn.Module):
    def __init__(self, naive: NaiveFPT) -> None:
        super().__init__()
        self.naive = naive

    def forward(self, inputs: Inputs) -> Tensor:
        logits: Tensor = self.naive(inputs.views["coarse"], inputs.features["keys"], inputs.features["values"])
        return logits


def same_tokens(pair: Pair) -> float:
    """Share of the tokens selected in fp32 that are selected in bf16, too."""
    image, frozen = torch.randn(1, 3, SIZE, SIZE), pair.frozen

    def selected(precision: str) -> list[Tensor]:
        with torch.no_grad(), autocast(pair.device, precision):
            asked = pair.ours.backbone.queries_keys_values(image, frozen.layers)
            return [frozen.select(frozen.weigh(query, key)) for query, key, _ in asked]

    pairs = zip(selected("fp32"), selected("bf16"), strict=True)
    shares = [(one.unsqueeze(-1) == other.unsqueeze(-2)).any(dim=-1).float().mean() for one, other in pairs]
    return float(torch.stack(shares).mean())


def extraction_row(method: str, threads: int, precision: str) -> Row:
    torch.set_num_threads(threads)
    pair, rate = Pair(method, torch.device("cpu")), products_per_second()
    if precision == "bf16" and products_per_second("bf16") < rate:
        return None, "not measured: this CPU's products are no faster in bf16", ""
    floor = extraction_products(pair.frozen.layers) / rate
    ratio, ours, naive = extraction(pair, precision, rounds=5)
    by_cpu, _, _ = extraction(pair, precision, rounds=3, clock=time.process_time)
    return ratio, f"{ours:.2f} s ({ours / floor:.2f} x the fp32 floor; {by_cpu:.3f} of the CPU time)", f"{naive:.2f} s"


def training_row(method: str, threads: int) -> Row:
    torch.set_num_threads(threads)
    pair = Pair(method, torch.device("cpu"))
    ratio, ours, naive = training_step(method, threads, rounds=11)
    floor = step_products(pair) / products_per_second()
    return ratio, f"{1000 * ours:.0f} ms ({ours / floor:.2f} x the floor)", f"{1000 * naive:.0f} ms"


def bytes_row(method: str, _: int) -> Row:
    ratio, ours, naive = bytes_an_image(Pair(method, torch.device("cpu")))
    return ratio, f"{ours:,}", f"{naive:,}"


def memory_row(method: str, _: int) -> Row:
    ratio, ours, naive = peak_memory(method)
    return ratio, f"{ours:,.0f} MiB", f"{naive:,.0f} MiB"


def tokens_row(method: str, _: int) -> Row:
    return same_tokens(Pair(method, torch.device("cpu"))), "", ""


def forms_of(method: str, device: str) -> tuple[Pair, Pair]:
    """Tokens, and keys and values of the same tokens."""
    return Pair(method, torch.device(device), "tokens"), Pair(method, torch.device(device), "keys_values")


def tokens_bytes_row(method: str, _: int) -> Row:
    tokens, keys_values = (bytes_an_image(pair)[1] for pair in forms_of(method, "cpu"))
    return tokens / keys_values, f"{tokens:,}", f"{keys_values:,}"


def tokens_step_row(method: str, threads: int) -> Row:
    forms = [(our_step, pair) for pair in forms_of(method, "cpu")]
    ratio, tokens, keys_values = steps_in_turns(forms, threads, rounds=11)
    return ratio, f"{1000 * tokens:.0f} ms", f"{1000 * keys_values:.0f} ms"


def tokens_memory_row(method: str, _: int) -> Row:
    tokens, keys_values = (predict_training(pair.config, pair.ours).allocated for pair in forms_of(method, "meta"))
    return tokens / keys_values, f"{tokens / 2**20:,.0f} MiB", f"{keys_values / 2**20:,.0f} MiB"


ROWS: tuple[tuple[str, Callable[[str, int], Row], Sequence[int]], ...] = (
    ("bytes an image", bytes_row, (2,)),
    ("peak memory of a step", memory_row, (2,)),
    ("selected tokens, bf16 as in fp32", tokens_row, (2,)),
    ("extraction, fp32", partial(extraction_row, precision="fp32"), (1, 2)),
    ("extraction, bf16", partial(extraction_row, precision="bf16"), (1, 2)),
    ("training step with loading", training_row, (1, 2)),
    ("bytes an image, tokens over keys and values", tokens_bytes_row, (2,)),
    ("peak memory of a step, tokens over keys and values", tokens_memory_row, (2,)),
    ("training step, tokens over keys and values", tokens_step_row, (1, 2)),
)


def report(console: Console, only: str = "") -> None:
    """Print everything, or the rows whose name begins so; takes some minutes.

    Each row has a process of its own: how fast a large matrix is made hangs on what the process has freed before.
    """
    table = Table("method", "threads", "what", "ratio", "petlbench", "naive", title=f"preloading, {BACKBONE} at {SIZE}")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as processes:
        for method in METHODS:
            for name, row, counts in (each for each in ROWS if each[0].startswith(only)):
                for threads in counts:
                    ratio, here, there = processes.submit(row, method, threads).result()
                    table.add_row(method, str(threads), name, "" if ratio is None else f"{ratio:.3f}", here, there)
    console.print(table)


if __name__ == "__main__":
    report(Console(width=140), *sys.argv[1:])
