"""The config of a run, its name, its seeds, and settings that are checked with words."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from petlbench.core.config import RunConfig, TrainingConfig, derive_seed, validate_settings
from petlbench.core.errors import InputError

TRAINING: dict[str, Any] = {
    "epochs": 20,
    "batch_size": 16,
    "accumulate": 1,
    "optimizer": "adamw",
    "lr": 1e-3,
    "weight_decay": 1e-4,
    "decay": "all",
    "loss": "cross_entropy",
    "schedule": "cosine",
    "min_lr": 0.0,
    "layer_decay": 1.0,
    "drop_path": 0.0,
    "ema_decay": 0.0,
    "warmup_epochs": 0.0,
    "warmup_lr": 0.0,
    "label_smoothing": 0.0,
    "class_weights": "none",
    "clip_grad_norm": 1.0,
    "augment": "standard",
    "drop_last": None,
    "select": "score",
}
RUN: dict[str, Any] = {
    "method": "lora",
    "method_settings": {"rank": 16, "alpha": None},
    "dataset": "digits",
    "dataset_settings": {},
    "split": "random",
    "split_seed": 0,
    "shots": 0,
    "train_fraction": 1.0,
    "draw": 0,
    "shots_val": False,
    "train_on": "train",
    "skip_corrupt": False,
    "test_on": "",
    "aggregate": "mean",
    "backbone": "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "weights": "default",
    "image_size": 224,
    "normalize": "backbone",
    "training": TRAINING,
    "preload": False,
    "cache_precision": None,
    "cache_form": "keys_values",
    "seed": 0,
    "device": "cpu",
    "threads": 2,
    "precision": "fp32",
    "extract_precision": None,
    "attention_kernel": "auto",
    "checkpointing": False,
    "compile": False,
    "calibrate": "none",
    "test_every_epoch": False,
}
# Another value of every field; a field that is missing here fails a test.
OTHER_TRAINING: dict[str, Any] = {
    "epochs": 21,
    "batch_size": 17,
    "accumulate": 2,
    "optimizer": "sgd",
    "lr": 2e-3,
    "weight_decay": 0.0,
    "decay": "matrices",
    "loss": "focal",
    "schedule": "constant",
    "min_lr": 1e-6,
    "layer_decay": 0.75,
    "drop_path": 0.1,
    "ema_decay": 0.99,
    "warmup_epochs": 0.5,
    "warmup_lr": 1e-6,
    "label_smoothing": 0.1,
    "class_weights": "balanced",
    "clip_grad_norm": 0.0,
    "augment": "none",
    "drop_last": True,
    "select": "worst-group:sex",
}
OTHER: dict[str, Any] = {
    "method": "full",
    "method_settings": {"rank": 8, "alpha": None},
    "dataset": "lesions",
    "dataset_settings": {"image_count": 60},
    "split": "official",
    "split_seed": 1,
    "shots": 5,
    "train_fraction": 0.1,
    "draw": 1,
    "shots_val": True,
    "train_on": "train+val",
    "skip_corrupt": True,
    "test_on": "lesions",
    "aggregate": "noisy_or",
    "backbone": "vit_small_patch16_224.augreg_in21k_ft_in1k",
    "weights": "none",
    "image_size": 384,
    "normalize": "card",
    "preload": True,
    "cache_precision": "int8",
    "cache_form": "tokens",
    "seed": 1,
    "device": "cuda",
    "threads": 3,
    "precision": "bf16",
    "extract_precision": "bf16",
    "attention_kernel": "eager",
    "checkpointing": True,
    "compile": True,
    "calibrate": "temperature",
    "test_every_epoch": True,
}

# Fields of a run that came later.
LATER = ("aggregate", "calibrate", "test_every_epoch", "shots", "train_fraction", "draw", "shots_val", "train_on")
LATER += ("cache_form", "extract_precision", "compile")
LATER_TRAINING = ("decay", "select", "drop_last", "warmup_lr")


def config(**changed: Any) -> RunConfig:
    return RunConfig.model_validate({**RUN, **changed})


def without(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


class TestRunId:
    def test_a_setting_that_came_later_leaves_the_names_of_earlier_runs(self) -> None:
        earlier = without({**RUN, "training": without(TRAINING, *LATER_TRAINING)}, *LATER)
        text = json.dumps(earlier, sort_keys=True, separators=(",", ":"))
        assert config().digest == hashlib.sha256(text.encode()).hexdigest()

    def test_every_field_has_another_value_here(self) -> None:
        assert set(OTHER) | {"training"} == set(RunConfig.model_fields) == set(RUN)
        assert set(OTHER_TRAINING) == set(TrainingConfig.model_fields) == set(TRAINING)

    @pytest.mark.parametrize("field", list(OTHER))
    def test_changing_a_field_changes_the_digest(self, field: str) -> None:
        assert config(**{field: OTHER[field]}).digest != config().digest

    @pytest.mark.parametrize("field", list(OTHER_TRAINING))
    def test_changing_how_it_trains_changes_the_digest(self, field: str) -> None:
        assert config(training={**TRAINING, field: OTHER_TRAINING[field]}).digest != config().digest

    @given(st.lists(st.sampled_from(sorted({*OTHER, *OTHER_TRAINING})), unique=True), st.randoms())
    def test_different_choices_never_share_a_name(self, chosen: list[str], random: Any) -> None:
        def changed(names: list[str]) -> RunConfig:
            values = {name: OTHER[name] for name in names if name in OTHER}
            training = {**TRAINING, **{name: OTHER_TRAINING[name] for name in names if name in OTHER_TRAINING}}
            return config(**values, training=training)

        shuffled = random.sample(chosen, len(chosen))
        assert changed(shuffled).run_id == changed(chosen).run_id
        if chosen:
            assert changed(chosen[1:]).run_id != changed(chosen).run_id

    def test_the_digest_is_that_of_the_canonical_json(self) -> None:
        later = {name: OTHER[name] for name in LATER}
        training = {**TRAINING, **{name: OTHER_TRAINING[name] for name in LATER_TRAINING}}
        whole = {**RUN, **later, "training": training}
        text = json.dumps(whole, sort_keys=True, separators=(",", ":"))
        assert config(**whole).digest == hashlib.sha256(text.encode()).hexdigest()

    def test_a_default_that_is_spelled_out_changes_nothing(self) -> None:
        short = {"lr": 1e-3, "weight_decay": 1e-4}
        assert config(training=short).digest == config().digest

    def test_whole_numbers_and_text_become_the_fields_type(self) -> None:
        loose = {**TRAINING, "warmup_epochs": 0, "clip_grad_norm": "1", "lr": "0.001", "epochs": "20"}
        assert config(training=loose).digest == config().digest

    def test_the_order_of_settings_changes_nothing(self) -> None:
        assert config(method_settings={"alpha": None, "rank": 16}).digest == config().digest

    def test_a_config_reads_back_under_the_same_name(self) -> None:
        stored = json.loads(json.dumps(config().model_dump(mode="json")))
        assert RunConfig.model_validate(stored).run_id == config().run_id

    def test_the_name_is_readable_in_front(self) -> None:
        assert config(seed=7).run_id == f"lora-digits-s7-{config(seed=7).digest[:12]}"

    @pytest.mark.parametrize(
        ("dataset", "name"),
        [
            ("digits", "digits"),
            ("/data/My eyes/", "My_eyes"),
            ("/data/labels.v2.csv", "labels"),
            ("/data/cards/eye-set.toml", "eye_set"),
            ("/data/é漢字", "dataset"),
            ("/", "dataset"),
        ],
    )
    def test_the_name_is_safe_in_a_path(self, dataset: str, name: str) -> None:
        assert config(dataset=dataset).run_id.startswith(f"lora-{name}-s0-")

    def test_two_folders_of_one_name_are_two_runs(self) -> None:
        assert config(dataset="/a/eyes").run_id != config(dataset="/b/eyes").run_id

    @given(st.text(min_size=1, max_size=30))
    def test_no_name_leaves_the_output_folder(self, dataset: str) -> None:
        run_id = config(dataset=dataset).run_id
        assert run_id.isascii()
        assert set(run_id) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")

    def test_a_long_name_leaves_room_for_the_rest_of_a_files_name(self) -> None:
        long = [config(dataset=f"/data/{'collection-' * 22}{end}").run_id for end in ("a", "b")]
        assert max(map(len, long)) < 200
        assert long[0] != long[1]


class TestBounds:
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("image_size", 0),
            ("seed", -1),
            ("seed", 2**32),
            ("split_seed", -1),
            ("threads", 0),
            ("device", "tpu"),
            ("precision", "fp64"),
            ("attention_kernel", "flash"),
            ("normalize", "imagenot"),
            ("unknown", 1),
        ],
    )
    def test_a_value_out_of_bounds_is_refused(self, field: str, value: Any) -> None:
        with pytest.raises(ValidationError, match=field):
            config(**{field: value})

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("epochs", 0),
            ("epochs", 1.5),
            ("batch_size", 0),
            ("lr", 0),
            ("lr", -1),
            ("lr", float("nan")),
            ("lr", float("inf")),
            ("weight_decay", -1e-9),
            ("warmup_epochs", -1),
            ("warmup_epochs", float("nan")),
            ("warmup_epochs", float("inf")),
            ("label_smoothing", 1),
            ("clip_grad_norm", -1),
            ("clip_grad_norm", float("nan")),
            ("clip_grad_norm", float("inf")),
            ("momentum", 0.9),
        ],
    )
    def test_a_training_value_out_of_bounds_is_refused(self, field: str, value: Any) -> None:
        with pytest.raises(ValidationError, match=field):
            TrainingConfig.model_validate({**TRAINING, field: value})

    @pytest.mark.parametrize(
        ("field", "most", "step"),
        [
            ("epochs", 10_000, 1),
            ("batch_size", 65_536, 1),
            ("lr", 1e6, 1),
            ("weight_decay", 1e3, 1),
            ("min_lr", 1e6, 1),
            ("warmup_epochs", 10_000, 1),
            ("layer_decay", 1, 1e-9),
            ("seed", 2**32 - 1, 1),
            ("train_fraction", 1, 1e-9),
            ("draw", 10**6, 1),
            ("threads", 1024, 1),
        ],
    )
    def test_the_greatest_value_is_taken_and_none_above(self, field: str, most: float, step: float) -> None:
        def with_value(value: float) -> RunConfig:
            is_training = field in TrainingConfig.model_fields
            return config(training={**TRAINING, field: value}) if is_training else config(**{field: value})

        values = with_value(most).model_dump()
        assert {**values, **values["training"]}[field] == most
        with pytest.raises(ValidationError, match=field):
            with_value(most + step)

    def test_what_is_left_out_takes_the_defaults_that_results_were_made_with(self) -> None:
        fields = {**RunConfig.model_fields, **TrainingConfig.model_fields}
        optional = {name: field for name, field in fields.items() if not field.is_required()}
        assert {
            name: field.default for name, field in optional.items() if not field.default_factory and field.default
        } == {
            "train_fraction": 1,
            "train_on": "train",
            "weights": "default",
            "normalize": "backbone",
            "precision": "fp32",
            "cache_form": "keys_values",
            "attention_kernel": "auto",
            "calibrate": "none",
            "epochs": 20,
            "batch_size": 16,
            "accumulate": 1,
            "optimizer": "adamw",
            "loss": "cross_entropy",
            "decay": "all",
            "schedule": "cosine",
            "layer_decay": 1,
            "class_weights": "none",
            "clip_grad_norm": 1,
            "augment": "standard",
            "aggregate": "mean",
            "select": "score",
        }

    def test_a_config_cannot_be_changed(self) -> None:
        with pytest.raises(ValidationError):
            config().seed = 3  # type: ignore[misc]


class TestSeeds:
    def test_seeds_are_stable(self) -> None:
        expected = int.from_bytes(hashlib.sha256(b"0/epoch/3").digest()[:8], "big") >> 1
        assert derive_seed(0, "epoch", 3) == expected

    @given(st.integers(0, 2**32 - 1), st.lists(st.one_of(st.text(), st.integers())))
    def test_a_seed_fits_torch_and_numpy(self, seed: int, purpose: list[str | int]) -> None:
        assert 0 <= derive_seed(seed, *purpose) < 2**63
        assert derive_seed(seed, *purpose) == derive_seed(seed, *purpose)

    @given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(1, 999), st.integers(1, 999))
    def test_seeds_of_different_purposes_differ(self, seed: int, other: int, epoch: int, later: int) -> None:
        assert (derive_seed(seed, "epoch", epoch) == derive_seed(other, "epoch", later)) == (
            (seed, epoch) == (other, later)
        )
        assert derive_seed(seed, "adapt") != derive_seed(seed, "backbone")


class Bounded(BaseModel):
    model_config = ConfigDict(extra="forbid")

    rank: int = Field(16, ge=1, le=64, description="rank of the update")
    alpha: float | None = Field(None, gt=0)


class Nothing(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TestSettings:
    def test_text_becomes_the_type_of_the_field(self) -> None:
        assert validate_settings(Bounded, {"rank": "8", "alpha": "2.5"}, "x") == Bounded(rank=8, alpha=2.5)

    def test_what_is_left_out_takes_its_default(self) -> None:
        assert validate_settings(Bounded, {}, "x").rank == 16

    def test_an_unknown_key_is_answered_with_the_nearest(self) -> None:
        with pytest.raises(InputError) as caught:
            validate_settings(Bounded, {"rnk": 1}, "method x")
        assert caught.value.message == "method x has no setting 'rnk'"
        assert caught.value.hint == "did you mean rank?"
        assert caught.value.kind == "unknown_setting"

    def test_an_unknown_key_of_something_without_settings_says_so(self) -> None:
        with pytest.raises(InputError) as caught:
            validate_settings(Nothing, {"rank": 1}, "method x")
        assert caught.value.hint == "method x has no settings"

    @pytest.mark.parametrize(("value", "why"), [("0", "greater than or equal to 1"), ("65", "64"), ("x", "integer")])
    def test_a_refused_value_is_shown_with_its_key_bound_and_meaning(self, value: str, why: str) -> None:
        with pytest.raises(InputError) as caught:
            validate_settings(Bounded, {"rank": value}, "method x")
        assert f"method x: rank = '{value}' is refused" in caught.value.message
        assert why in caught.value.message
        assert caught.value.hint == "rank: rank of the update"
        assert caught.value.kind == "bad_setting"
