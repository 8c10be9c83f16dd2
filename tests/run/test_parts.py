"""What a process keeps between its runs: it changes no byte, is made again when files change, and spares decoding."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from petlbench.core.bounded_cache import BoundedCache
from petlbench.core.catalog import Catalog
from petlbench.core.request import Request
from petlbench.data.dataset import Dataset
from petlbench.models.registry import build_backbone
from petlbench.results.folder import RunFolder
from petlbench.run import data
from petlbench.run.image_cache import ImageCache
from petlbench.run.options import RunOptions
from petlbench.run.parts import KeptParts
from petlbench.run.resolve import resolve
from petlbench.study.executors.job import Action, EpochDone, Event, Job
from petlbench.study.executors.local import LocalExecutor
from petlbench.study.executors.run_job import perform
from tests.study.executors.watching import Watcher, journal

THREE = ("full", "fpt", "lora")
NINE = ("full", "linear", "vpt", "attention", "adapter", "bitfit", "lora", "fpt", "fpt_plus")

MakeJob = Callable[..., Job]


@pytest.fixture
def make_job(images: Path, tmp_path: Path) -> MakeJob:
    """Makes a job of this test."""

    def make(
        method: str, output: str = "results", *, dataset: Path = images, kind: ImageCache = "ram", seed: int = 0
    ) -> Job:
        request = Request(
            method,
            str(dataset),
            backbone="petlbench_micro",
            image_size=32,
            training={"epochs": 1, "batch_size": 8},
            device="cpu",
            threads=1,
            seed=seed,
        )
        folder = tmp_path / output
        options = RunOptions(
            folder, tmp_path, folder / "cache", tracking_uri="none", cache_images=kind, measure_inference="off"
        )
        return Job(resolve(request, Catalog(), tmp_path).config, options)

    return make


def carry_out(jobs: Sequence[Job], kept_parts: KeptParts | None = None) -> None:
    for job in jobs:
        ended = perform(job, lambda event: Action.GO_ON, kept_parts=kept_parts)
        assert (ended.status, ended.error) == ("finished", None)


def artifacts(jobs: Sequence[Job]) -> dict[str, tuple[bytes, ...]]:
    """What each method predicts and has learned, to the last bit."""
    names = ("predictions.parquet", "learned.safetensors", "manifest.csv")
    return {
        job.config.method: tuple((job.options.output / job.config.run_id / name).read_bytes() for name in names)
        for job in jobs
    }


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each image was decoded."""
    counts: Counter[str] = Counter()
    real = Dataset.open_deep

    def count(self: Dataset, record: Any) -> Any:
        counts[record.image_id] += 1
        return real(self, record)

    monkeypatch.setattr(Dataset, "open_deep", count)
    return counts


def test_no_byte_depends_on_what_was_kept(make_job: MakeJob) -> None:
    alone = [make_job(method, "alone") for method in THREE]
    after_others = [make_job(method, "after") for method in (*THREE[::-1], *THREE)]
    carry_out(alone)
    carry_out(after_others, KeptParts())
    assert artifacts(alone) == artifacts(after_others)


@pytest.mark.slow
def test_no_byte_depends_on_what_a_worker_kept_or_on_its_end(make_job: MakeJob) -> None:
    """Nine methods in one worker process that is killed in the fifth, and each in a process of its own."""
    alone = [make_job(method, "alone") for method in NINE]
    for job in alone:
        LocalExecutor(1).run(iter([job]), Watcher())
    watcher, together, victims = Watcher(), [make_job(method, "together") for method in NINE], list[int]()

    def kill(job: Job, event: Event) -> None:
        if job is together[4] and isinstance(event, EpochDone) and not victims:
            victims.append(int(journal(job, "started")[-1]["pid"]))
            os.kill(victims[0], signal.SIGKILL)

    watcher.react = kill
    LocalExecutor(1).run(iter(together), watcher)
    assert [ended.attempts for ended in watcher.endings()] == [1, 1, 1, 1, 2, 1, 1, 1, 1]
    assert victims
    assert artifacts(alone) == artifacts(together)


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_an_image_is_decoded_once_for_each_form_that_it_is_kept_in(
    kind: ImageCache, make_job: MakeJob, decoded: Counter[str]
) -> None:
    """A training image is cropped out of a larger square, and read without a crop for features."""
    kept_parts, methods = KeptParts(), ("linear", "full", "bitfit")
    for seed in (0, 1):
        carry_out([make_job(method, kind=kind, seed=seed) for method in methods], kept_parts)
    assert len(decoded) == 60
    assert max(decoded.values()) == 2


def test_a_changed_image_is_read_again(make_job: MakeJob, images: Path, tmp_path: Path, decoded: Counter[str]) -> None:
    own, kept_parts = tmp_path / "own", KeptParts()
    shutil.copytree(images, own)
    carry_out([make_job("linear", "first", dataset=own)], kept_parts)
    decoded.clear()
    for number, name in enumerate(("red", "green", "blue")):
        Image.new("RGB", (40, 40), (0, 0, 80 * number)).save(own / name / "00.png")
    (own / "red" / "01.png").unlink()
    after, alone = make_job("linear", "after", dataset=own), make_job("linear", "alone", dataset=own)
    carry_out([after], kept_parts)
    assert len(decoded) == 59
    carry_out([alone])
    assert artifacts([after]) == artifacts([alone])


def test_changed_weights_are_read_again(make_job: MakeJob, tmp_path: Path) -> None:
    file, kept_parts = tmp_path / "weights.safetensors", KeptParts()
    job = make_job("linear")
    config = job.config.model_copy(update={"weights": str(file)})
    digests, loads = list[str](), list[torch.nn.Module]()
    for seed in (0, 0, 1):
        if len(digests) != 1:
            torch.manual_seed(seed)
            module = build_backbone("petlbench_micro", 32, "none", torch.device("cpu")).module
            save_file(module.state_dict(), file)
            os.utime(file, ns=(seed, seed))
        kept_parts.begin_run()
        backbone, digest = kept_parts.backbone(config, torch.device("cpu"))
        digests.append(digest)
        loads.append(backbone.module)
        assert backbone.digest() == digest
        with torch.no_grad():  # as a method may
            next(iter(backbone.module.parameters())).add_(1)
    assert digests[0] == digests[1] != digests[2]
    assert len(set(map(id, loads))) == 3


def test_a_split_is_made_once_and_another_one_beside_it(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    made, assign = list[int](), data.assign_splits
    monkeypatch.setattr(data, "assign_splits", lambda *args, **how: made.append(args[2]) or assign(*args, **how))
    jobs = [make_job("linear", seed=seed) for seed in range(4)]
    jobs[2:] = [replace(job, config=job.config.model_copy(update={"split_seed": 7})) for job in jobs[2:]]
    carry_out(jobs, KeptParts())
    assert made == [0, 7]
    alone = replace(jobs[3], options=replace(jobs[3].options, output=jobs[3].options.output.with_name("alone")))
    carry_out([alone])
    assert artifacts([alone]) == artifacts(jobs[3:])
    documents = [RunFolder(job.options.output, job.config.run_id).result() for job in (alone, jobs[3])]
    assert documents[0] is not None
    assert documents[1] is not None
    assert documents[0].digests == documents[1].digests
    assert documents[0].data == documents[1].data


def test_a_catalogue_is_read_again_where_a_file_of_it_has_changed(tmp_path: Path) -> None:
    kept_parts, own = KeptParts(), tmp_path / "datasets" / "mine"
    own.mkdir(parents=True)
    card = 'title = "Eyes"\n'
    (tmp_path / "datasets" / "eyes.toml").write_text(card)
    first = kept_parts.catalog((tmp_path,))
    assert "eyes" in first.entries("dataset")
    assert kept_parts.catalog((tmp_path,)) is first
    (own / "more.toml").write_text(card)  # in a folder where there was nothing
    second = kept_parts.catalog((tmp_path,))
    assert "mine/more" in second.entries("dataset")
    (own / "more.toml").write_text(card.replace("Eyes", "Ears"))
    third = kept_parts.catalog((tmp_path,))
    assert third.find("dataset", "mine/more").title == "Ears"
    assert kept_parts.catalog((tmp_path,)) is third
    assert "eyes" not in kept_parts.catalog(()).entries("dataset")


def test_what_an_earlier_run_used_makes_room_and_what_this_one_uses_stays() -> None:
    cache: BoundedCache[str, int] = BoundedCache()
    cache.begin_run(30)
    for name in "abcd":
        cache.keep(name, 0, 10)
    assert [cache.find(name) is not None for name in "abcd"] == [True, True, True, False]
    cache.begin_run(30)
    cache.find("a")
    for name in "xyz":
        cache.keep(name, 0, 10)
    assert [cache.find(name) is not None for name in "abcxyz"] == [True, False, False, True, True, False]
    cache.begin_run(10)
    assert cache.held == 10
    assert cache.find("y") == 0
