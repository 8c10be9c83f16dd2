"""Every combination, each resolved as a run of its own would be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig
from petlbench.core.errors import InputError
from petlbench.core.request import Request, Tuned
from petlbench.run.resolve import resolve
from petlbench.study.grid import Grid
from petlbench.study.planned_run import PlannedRun

CATALOG = Catalog()
METHODS = ("linear", "full", "bitfit", "fpt", "lora", "mlp_head")

OWN = """
from petlbench import Adapted, Classifier, Method, MethodCard, MethodSettings, TrainingDefaults


class Own(Method[MethodSettings]):
    Settings = MethodSettings
    defaults = TrainingDefaults(lr=0.1)

    def adapt(self, backbone, num_classes):
        return Adapted(Classifier(backbone, num_classes), frozenset({"head.bias", "head.weight"}))


class Choosy(Own):
    card = MethodCard(name="choosy", title="Choosy", family="own", year=2026, paper="none")

    def refuse(self, backbone):
        return "it wants another one"


class Broken(Own):
    card = MethodCard(name="broken", title="Broken", family="own", year=2026, paper="none")

    def refuse(self, backbone):
        raise TypeError("by design")
"""

MakeMatrix = Callable[..., Grid]


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    folder = tmp_path_factory.mktemp("own")
    (folder / "own.py").write_text(OWN)
    return Catalog((folder,))


@pytest.fixture
def make(images: Path, request_: Request) -> MakeMatrix:
    def make(*methods: str, datasets: tuple[str, ...] = ("one",), seeds: tuple[int, ...] = (0,), **more: object):
        changed = replace(request_, **{name: more.pop(name) for name in list(more) if hasattr(request_, name)})
        return Grid(methods, [str(images / one) for one in datasets], seeds, changed, **more)

    return make


def cells(plans: list[PlannedRun]) -> list[tuple[str, str, int]]:
    return [(one.method, Path(one.dataset).name, one.seed) for one in plans]


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    methods=st.lists(st.sampled_from(METHODS), min_size=1, max_size=4, unique=True),
    datasets=st.lists(st.sampled_from(("one", "two")), min_size=1, unique=True),
    seeds=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=3, unique=True),
)
def test_every_combination_is_there_once_and_is_the_run_that_it_names(
    make: MakeMatrix, images: Path, request_: Request, methods: list[str], datasets: list[str], seeds: list[int]
) -> None:
    plans = make(*methods, datasets=tuple(datasets), seeds=tuple(seeds)).plans(CATALOG, images)
    assert cells(plans) == [(method, one, seed) for one in datasets for method in methods for seed in seeds]
    for planned in plans:
        alone = replace(request_, method=planned.method, dataset=planned.dataset, seed=planned.seed)
        assert planned.config == resolve(alone, CATALOG, images).config
    ids = {planned.config.run_id for planned in plans if planned.config is not None}
    assert len(ids) == len(plans)


@pytest.mark.parametrize("dataset", ["isic2018", "ddr", "digits", "lesions"])
def test_what_a_card_says_of_a_run_holds_for_every_method(dataset: str, tmp_path: Path) -> None:
    request = Request("", backbone="petlbench_micro", normalize="backbone", device="cpu", threads=1)
    settings = {"lesions": {"image_count": "60", "image_size": "128"}}
    methods = ("fpt", "linear", "fpt_plus", "full")
    given = settings if dataset == "lesions" else {}
    for planned in Grid(methods, [dataset], [3], request, given).plans(CATALOG, tmp_path):
        alone = replace(
            request, method=planned.method, dataset=dataset, seed=3, dataset_settings=settings.get(dataset, {})
        )
        assert planned.config == resolve(alone, CATALOG, tmp_path).config


def test_every_method_of_a_study_trains_with_the_loss_of_the_datasets_task(tmp_path: Path) -> None:
    request = Request("", backbone="petlbench_micro", image_size=32)
    runs = Grid(["linear", "bitfit"], ["chestmnist"], [0], request).plans(CATALOG, tmp_path)
    assert [run.config and run.config.training.loss for run in runs] == ["binary_cross_entropy"] * 2


def test_a_method_that_refuses_the_backbone_is_unsupported_and_the_others_stand(
    make: MakeMatrix, own: Catalog, images: Path
) -> None:
    plans = make("choosy", "linear", "broken", "bitfit", datasets=("one", "two")).plans(own, images)
    by_method = {method: [one for one in plans if one.method == method] for method in ("choosy", "broken")}
    for one in by_method["choosy"]:
        assert one.config is None
        assert not one.is_defect
        assert "it wants another one" in (one.refusal or "")
    for one in by_method["broken"]:
        assert one.config is None
        assert one.is_defect
        assert one.refusal == "TypeError: by design"
    assert all(one.config is not None for one in plans if one.method in ("linear", "bitfit"))


@pytest.mark.parametrize(
    ("change", "kind", "named"),
    [
        ({"backbone": "vit_huge_patch99"}, "unknown_backbone", "vit_huge_patch99"),
        ({"training": {"epochs": "0"}}, "bad_setting", "epochs"),
        ({"settings": {"lora": {"rnak": "4"}}}, "unknown_setting", "rnak"),
        ({"settings": {"lora": {"rank": "-4"}}}, "bad_setting", "rank"),
        ({"seeds": (-1,)}, "bad_seed", "-1"),
        ({"image_size": 33}, "bad_image_size", "33"),
    ],
)
def test_what_is_wrong_for_all_is_one_error_at_once(
    make: MakeMatrix, images: Path, change: dict[str, object], kind: str, named: str
) -> None:
    with pytest.raises(InputError) as caught:
        make("linear", "lora", **change).plans(CATALOG, images)
    assert caught.value.kind == kind
    assert named in caught.value.message


def test_an_unknown_method_or_dataset_is_named(make: MakeMatrix, images: Path) -> None:
    with pytest.raises(InputError, match="lroa"):
        make("linear", "lroa").plans(CATALOG, images)
    with pytest.raises(InputError, match="three"):
        make("linear", datasets=("one", "three")).plans(CATALOG, images)


def test_settings_of_one_method_reach_that_one_alone(make: MakeMatrix, images: Path) -> None:
    plans = make("lora", "rslora", settings={"lora": {"rank": "3"}}).plans(CATALOG, images)
    ranks = {one.method: one.config.method_settings["rank"] for one in plans if one.config is not None}
    assert ranks["lora"] == 3 != ranks["rslora"]


def test_preloading_goes_to_those_that_can(make: MakeMatrix, images: Path) -> None:
    asked = {"preload": True, "cache_precision": "fp16", "extract_precision": "bf16"}
    plans = make("full", "fpt", **asked).plans(CATALOG, images)
    shown = {one.method: {name: getattr(one.config, name) for name in asked} for one in plans if one.config is not None}
    assert shown == {"full": {"preload": False, "cache_precision": None, "extract_precision": None}, "fpt": asked}


def test_a_sweeps_winner_stands_before_defaults_and_behind_what_is_asked_for(
    make: MakeMatrix, images: Path, request_: Request
) -> None:
    best_of = {("lora", "one"): Tuned({"lr": 0.25, "epochs": 9}, {"rank": 5})}

    def tuned(config: RunConfig, _: object) -> Tuned:
        return best_of.get((config.method, Path(config.dataset).name), Tuned({}, {}))

    plans = make("lora", "linear", datasets=("one", "two"), tuned=tuned).plans(CATALOG, images)
    configs = {(one.method, Path(one.dataset).name): one.config for one in plans if one.config is not None}
    best = configs["lora", "one"]
    assert (best.training.lr, best.method_settings["rank"]) == (0.25, 5)
    assert best.training.epochs == request_.training["epochs"]
    assert configs["lora", "two"].training.lr != 0.25
