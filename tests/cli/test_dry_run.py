"""``petlbench run --dry-run``: the published parameter counts, and what a run would take, from meta tensors alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

Cli = Callable[..., Any]
Quick = Callable[..., list[str]]

# Learnable parameters as the papers print them (7 classes, ViT-B/16 at 384 pixels).
PUBLISHED = {
    "full": 86_095_879,
    "linear": 5_383,
    "attention": 28_353_799,
    "bitfit": 108_295,
    "adapter": 1_794_439,
    "vpt": 152_839,
    "lora": 595_207,
    "fpt": 1_602_535,
    "fpt_plus": 901_159,
}
PAPER = ("--dataset", "isic2018", "--backbone", "vit_base_patch16_384", "--weights", "none", "--dry-run", "--json")


@pytest.fixture(autouse=True)
def large_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with room for all features of the papers' datasets."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**13))


@pytest.fixture(scope="module")
def plans() -> dict[str, Any]:
    """Dry runs that were made already; a dry run of ViT-B takes seconds."""
    return {}


@pytest.fixture
def plan(cli: Cli, plans: dict[str, Any]) -> Callable[..., Any]:
    """Make a dry run of the papers' setting, once."""

    def make(method: str, *more: str) -> Any:
        key = " ".join((method, *more))
        if key not in plans:
            outcome = cli("run", "--method", method, *PAPER, "--device", "cpu", "--threads", "1", *more)
            assert outcome.status == 0, outcome.out
            plans[key] = outcome.document
        return plans[key]

    return make


@pytest.mark.parametrize("method", list(PUBLISHED))
def test_the_learnable_parameters_are_the_published_ones(plan: Callable[..., Any], method: str) -> None:
    assert plan(method, "--image-size", "384")["parameters"]["learnable"] == PUBLISHED[method]


@pytest.mark.parametrize(("method", "percent"), [("full", 100), ("fpt", 1.81), ("fpt_plus", 1.03), ("linear", 0.01)])
def test_the_ratio_as_the_papers_count_it(plan: Callable[..., Any], method: str, percent: float) -> None:
    parameters = plan(method, "--image-size", "384")["parameters"]
    assert round(100 * parameters["ratio_published"], 2) == percent
    assert parameters["ratio"] == parameters["learnable"] / parameters["total"]


def test_the_total_is_backbone_method_and_head_and_the_papers_total_has_the_old_classifier(
    plan: Callable[..., Any],
) -> None:
    parameters = plan("fpt", "--image-size", "384")["parameters"]
    backbone = PUBLISHED["full"] - 7 * 769
    assert parameters["total"] == backbone + PUBLISHED["fpt"]
    assert parameters["learnable"] / parameters["ratio_published"] == pytest.approx(
        parameters["total"] + 1000 * 769, abs=1
    )


def test_a_predicted_figure_says_that_it_is_predicted(plan: Callable[..., Any]) -> None:
    for method in PUBLISHED:
        memory = plan(method, "--image-size", "384")["memory"]
        assert memory["source"] == "predicted"
        assert memory["reserved"] is None
        assert memory["process"] is None
        assert sum(memory["parts"].values()) == memory["allocated"]


def test_full_holds_parameters_gradients_and_two_moments(plan: Callable[..., Any]) -> None:
    parts = plan("full", "--image-size", "384")["memory"]["parts"]
    assert parts["parameters"] == pytest.approx(4 * PUBLISHED["full"], rel=0.001)
    assert parts["optimizer"] == pytest.approx(8 * PUBLISHED["full"], rel=0.001)


@pytest.mark.slow
def test_frozen_methods_need_less_memory_than_full(plan: Callable[..., Any]) -> None:
    need = {method: plan(method, "--image-size", "384")["memory"]["allocated"] for method in PUBLISHED}
    assert need["linear"] < need["fpt_plus"] < need["fpt"] < need["lora"] < need["full"]


def test_the_feature_cache_of_fpt_at_512_is_fifteen_megabytes_an_image(plan: Callable[..., Any]) -> None:
    cache = plan("fpt", "--image-size", "512", "--cache-precision", "fp32")["feature_cache"]
    layers, heads, kept, width, keys_and_values = 12, 12, 205, 64, 2
    assert cache["bytes_per_image"] == layers * keys_and_values * heads * kept * width * 4 == 15_114_240
    assert cache["bytes"] == 15_114_240 * 11_720
    assert cache["free"] == 10**13


def test_integers_and_their_scales_take_a_quarter(plan: Callable[..., Any]) -> None:
    each = plan("fpt", "--image-size", "512")["feature_cache"]["bytes_per_image"]
    assert each == 15_114_240 * (64 + 2) // (64 * 4)


@pytest.mark.slow
def test_fpt_plus_caches_half_of_the_layers(plan: Callable[..., Any]) -> None:
    cache = plan("fpt_plus", "--image-size", "512", "--cache-precision", "fp32")["feature_cache"]
    assert cache["bytes_per_image"] == 15_114_240 // 2


NOTHING_PRELOADED = {"bytes_per_image": None, "bytes": None, "free": None, "form": None, "by_form": None}


def test_a_method_that_preloads_nothing_has_no_feature_cache(plan: Callable[..., Any]) -> None:
    assert plan("lora", "--image-size", "384")["feature_cache"] == NOTHING_PRELOADED


def test_without_preloading_the_backbone_counts_in_the_step(cli: Cli, quick: Quick) -> None:
    preloaded, live = (
        cli(*quick(dry_run=True, json=True, **flags)).document for flags in ({"preload": True}, {"no_preload": True})
    )
    assert live["feature_cache"] == NOTHING_PRELOADED
    backbone = 4 * (live["parameters"]["total"] - live["parameters"]["learnable"])
    assert live["memory"]["parts"]["parameters"] - preloaded["memory"]["parts"]["parameters"] >= backbone
    assert live["parameters"] == preloaded["parameters"]


def test_the_image_size_is_the_cards_then_the_backbones(plan: Callable[..., Any], cli: Cli, quick: Quick) -> None:
    assert plan("linear")["config"]["image_size"] == 512
    arguments = quick(dry_run=True, json=True)
    position = arguments.index("--image-size")
    del arguments[position : position + 2]
    assert cli(*arguments).document["config"]["image_size"] == 128


def test_a_bare_backbone_name_is_completed(plan: Callable[..., Any]) -> None:
    assert plan("linear")["config"]["backbone"] == "vit_base_patch16_384.orig_in21k_ft_in1k"


def test_a_dry_run_writes_nothing(cli: Cli, quick: Quick, here: Path, pictures: Path) -> None:
    before = sorted(here.rglob("*"))
    assert cli(*quick(dry_run=True)).status == 0
    assert sorted(here.rglob("*")) == before


def test_the_training_switches_stand_in_the_config_and_name_the_run(cli: Cli, quick: Quick) -> None:
    plain, switched = (
        cli(*quick(method="full", dry_run=True, json=True, **flags)).document
        for flags in ({}, {"checkpointing": True, "accumulate": "4", "optimizer": "sgd"})
    )
    assert plain["config"]["checkpointing"] is False
    assert [plain["config"]["training"][name] for name in ("accumulate", "optimizer")] == [1, "adamw"]
    assert switched["config"]["checkpointing"] is True
    assert [switched["config"]["training"][name] for name in ("accumulate", "optimizer")] == [4, "sgd"]
    assert switched["run_id"] != plain["run_id"]
    assert switched["parameters"] == plain["parameters"]


def test_each_training_switch_lowers_the_predicted_peak(cli: Cli, quick: Quick) -> None:
    switches: dict[str, dict[str, Any]] = {
        "none": {},
        "checkpointing": {"checkpointing": True},
        "accumulate": {"accumulate": "4"},
        "optimizer": {"optimizer": "sgd"},
    }
    memory = {
        name: cli(*quick(method="full", image_size="96", dry_run=True, json=True, **flags)).document["memory"]
        for name, flags in switches.items()
    }
    activations = {name: figures["parts"]["activations"] for name, figures in memory.items()}
    assert activations["checkpointing"] < 0.3 * activations["none"]
    assert activations["accumulate"] < 0.4 * activations["none"]
    # Momentum is one tensor a parameter; AdamW keeps two, and its step counts.
    assert memory["optimizer"]["parts"]["optimizer"] < 0.51 * memory["none"]["parts"]["optimizer"]
    assert all(figures["allocated"] < memory["none"]["allocated"] for name, figures in memory.items() if name != "none")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"accumulate": "0"}, ("accumulate = 0", "greater than or equal to 1")),
        ({"accumulate": "-3"}, ("accumulate = -3", "greater than or equal to 1")),
        ({"accumulate": "17", "batch_size": "16"}, ("accumulate = 17", "a batch of 16 images")),
        ({"accumulate": "17"}, ("accumulate = 17", "a batch of 16 images")),
        ({"accumulate": "2", "batch_size": "0"}, ("batch_size = 0", "greater than or equal to 1")),
        ({"accumulate": "half"}, ("--accumulate", "'half'")),
        ({"optimizer": "foo"}, ("--optimizer", "'foo'", "'adamw'", "'sgd'")),
        ({"set": "training.optimizer=foo"}, ("optimizer = 'foo'", "'adamw'", "'sgd'")),
    ],
)
def test_a_training_switch_out_of_bounds_is_refused(
    refused: Callable[..., dict[str, str]], quick: Quick, given: dict[str, str], words: tuple[str, ...]
) -> None:
    error = refused(*quick(dry_run=True, **given))
    assert [word for word in words if word not in error["message"]] == []
    assert "\n" not in error["message"]


def test_the_table_of_a_dry_run_says_that_memory_is_predicted(cli: Cli, quick: Quick) -> None:
    outcome = cli(*quick(dry_run=True))
    assert "dry run" in outcome.out
    assert "predicted" in outcome.out
    assert "386 of" in outcome.out


def test_defaults_that_are_spelled_out_name_the_same_run(cli: Cli, quick: Quick, pictures: Path) -> None:
    left_out = cli(*quick(method="lora", dry_run=True, json=True)).document
    spelled = quick(
        method="lora", dataset=str(pictures), lr="1e-3", weight_decay="1e-4", batch_size="16", dry_run=True, json=True
    )
    spelled += ["--set", "method.rank=16", "--set", "training.clip_grad_norm=1.0", "--set", "training.warmup_epochs=0"]
    assert cli(*spelled).document["run_id"] == left_out["run_id"]


def test_what_can_change_a_number_names_another_run(cli: Cli, quick: Quick) -> None:
    changes: list[dict[str, Any]] = [{}, {"threads": "2"}, {"no_preload": True}, {"set": "training.schedule=constant"}]
    digests = [
        cli(*quick(dry_run=True, json=True, **changed)).document["run_id"].rpartition("-")[2] for changed in changes
    ]
    assert len(set(digests)) == len(changes)


def test_what_cannot_change_a_number_names_the_same_run(cli: Cli, quick: Quick) -> None:
    elsewhere = {"output": "elsewhere", "workers": "5", "tracking_uri": "none", "data_root": "elsewhere"}
    run_ids = [cli(*quick(dry_run=True, json=True, **changed)).document["run_id"] for changed in ({}, elsewhere)]
    assert run_ids[0] == run_ids[1]


def test_a_method_of_the_users_runs_dry(cli: Cli, quick: Quick, here: Path) -> None:
    (here / "own").mkdir()
    (here / "own" / "bias_only.py").write_text(OWN_METHOD)
    outcome = cli(*quick(method="bias_only", catalog="own", dry_run=True, json=True))
    assert outcome.status == 0, outcome.out
    assert outcome.document["parameters"]["learnable"] == 192 * 2 + 2 + 192


def test_a_method_whose_file_does_not_import_names_the_file(cli: Cli, quick: Quick, here: Path) -> None:
    (here / "own").mkdir()
    (here / "own" / "bias_only.py").write_text("import no_such_package_at_all\n" + OWN_METHOD)
    outcome = cli(*quick(method="bias_only", catalog="own", dry_run=True, json=True))
    assert outcome.status == 2
    assert outcome.document["error"]["kind"] == "broken_catalog"
    assert str(here / "own" / "bias_only.py") in outcome.document["error"]["message"]
    assert "no_such_package_at_all" in outcome.document["error"]["message"]


OWN_METHOD = '''
from petlbench import Adapted, Classifier, Method, MethodCard, TrainingDefaults


class BiasOnly(Method):
    """Learns the bias of the last norm and the head."""

    card = MethodCard(name="bias_only", title="Bias only", family="own", year=2026, paper="https://example.org")
    defaults = TrainingDefaults(lr=1e-3)

    def adapt(self, backbone, num_classes):
        module = Classifier(backbone, num_classes)
        return Adapted(module, frozenset({"head.weight", "head.bias", "backbone.norm.bias"}))
'''
