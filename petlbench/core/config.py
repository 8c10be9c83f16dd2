"""The one description of a run: every choice that can change a number; and how settings are checked."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from petlbench.core.errors import InputError, unknown_name

M = TypeVar("M", bound=BaseModel)

Positive = Annotated[float, Field(gt=0)]
# Fields that came later, and what held before them: runs of then keep their names.
_LATER: Mapping[str, Any] = {
    "training.decay": "all",
    "training.select": "score",
    "training.drop_last": None,
    "training.warmup_lr": 0,
    "train_on": "train",
    "aggregate": "mean",
    "calibrate": "none",
    "test_every_epoch": False,
    "shots": 0,
    "train_fraction": 1.0,
    "draw": 0,
    "shots_val": False,
    "method_settings.solver": "steps",
    "method_settings.C": 1.0,
    "cache_form": "keys_values",
    "extract_precision": None,
    "compile": False,
}
# Characters of a dataset's name in a run's: a file's name has 255 bytes at most.
_LONGEST_NAME = 100
# Two or six numbers: the mean and the deviation of all channels, or three of each.
_NUMBER = r"\d{1,6}(\.\d{1,12})?"
_NORMALIZE = rf"backbone|card|imagenet|half|clip|none|{_NUMBER},{_NUMBER}(,{_NUMBER}){{4}}|{_NUMBER},{_NUMBER}"


class TrainingConfig(BaseModel):
    """How a run trains.

    The optimiser is the papers' AdamW (betas 0.9 and 0.999) unless another one is chosen: SGD with a momentum of 0.9.
    Methods are to be compared under one choice, so that they differ in nothing else.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = Field(20, ge=1, le=10_000, description="passes over the training split")
    batch_size: int = Field(16, ge=1, le=65_536, description="images a step")
    accumulate: int = Field(1, ge=1, description="pieces of a batch that go through one by one; at most batch_size")
    optimizer: str = Field("adamw", description="one of timm's by name: adamw, sgd (momentum 0.9), lamb, lion, …")
    loss: str = Field("cross_entropy", description="a loss of the catalogue; the task's own where none is named")
    lr: float = Field(gt=0, le=1e6, description="peak learning rate")
    weight_decay: float = Field(
        ge=0, le=1e3, description="on what decay names; adamw decays apart from the gradient, sgd with it"
    )
    decay: Literal["all", "matrices"] = Field(
        "all", description="what weight_decay acts on: all that is learned, or matrices alone"
    )
    schedule: Literal["cosine", "constant", "step", "multistep", "poly", "tanh"] = Field(
        "cosine", description="learning rate over the steps; step: a tenth after every third of the epochs"
    )
    min_lr: float = Field(0, ge=0, le=1e6, description="learning rate at the end of the schedule")
    layer_decay: float = Field(1, gt=0, le=1, description="factor of the rate with every block towards the image")
    drop_path: float = Field(0, ge=0, lt=1, description="stochastic depth of the backbone's last block")
    ema_decay: float = Field(0, ge=0, lt=1, description="of the average of weights that is evaluated and kept; 0: none")
    warmup_epochs: float = Field(0, ge=0, le=10_000, description="epochs of linear warm-up, fractions allowed")
    warmup_lr: float = Field(0, ge=0, le=1e6, description="learning rate that the warm-up starts from")
    label_smoothing: float = Field(0, ge=0, lt=1, description="share of the target spread over all classes")
    class_weights: Literal["none", "balanced"] = Field("none", description="weight of each class in the loss")
    clip_grad_norm: float = Field(1, ge=0, description="largest gradient norm; 0 for no clipping")
    augment: Literal["standard", "none"] = Field("standard", description="augmentation of the training images")
    drop_last: bool | None = Field(
        None, description="leave out a last batch that is not full, and refuse a training split without a full one"
    )
    select: str = Field(
        "score",
        pattern=r"^([a-z][a-z0-9_]*|worst-group:.+)$",
        description="what chooses the epoch on validation: score (the task's), another metric such as accuracy, last "
        "(no choice: the last epoch), or worst-group:COLUMN, the score of the worst of the subgroups by a column of "
        "the dataset's table",
    )

    @property
    def micro_batch_size(self) -> int:
        """Images that go through the module at once."""
        return math.ceil(self.batch_size / self.accumulate)

    @field_validator("accumulate")
    @classmethod
    def _check_pieces(cls, accumulate: int, info: ValidationInfo) -> int:
        batch_size = info.data.get("batch_size", accumulate)  # it is absent where it was refused itself
        if accumulate > batch_size:
            message = "a batch of {batch_size} images cannot be cut into more pieces than that"
            raise PydanticCustomError("too_many_pieces", message, {"batch_size": batch_size})
        return accumulate


class RunConfig(BaseModel):
    """One run, resolved: nothing in it is a default that could change later.

    Everything that can change a number is a field, the thread count and the device too; where files lie, whether
    results are tracked and how many processes load images are not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    method: str
    method_settings: Mapping[str, Any] = Field(default_factory=dict)
    dataset: str = Field(description="a catalogue name, or the absolute path of a folder, table or card")
    dataset_settings: Mapping[str, Any] = Field(default_factory=dict)
    split: str = Field(description="official, random, kfold:K/I or repeat:N/I")
    split_seed: int = Field(0, ge=0, description="seed of the split; the same for all seeds of a study")
    shots: int = Field(0, ge=0, description="images of each class to train on, groups where they are known; 0 for all")
    train_fraction: float = Field(1, gt=0, le=1, description="share of the training split to train on")
    draw: int = Field(0, ge=0, le=1_000_000, description="which draw of shots or of train_fraction, from 0")
    shots_val: bool = Field(False, description="whether the validation split is drawn as the training split is")
    train_on: Literal["train", "train+val"] = Field(
        "train",
        description="images that are trained on; with train+val nothing is validated, and the last epoch is taken",
    )
    skip_corrupt: bool = Field(False, description="whether images that cannot be read are left out")
    test_on: str = Field("", description="an external test set beside the test split, named as dataset is; or empty")
    aggregate: Literal["mean", "max", "noisy_or"] = Field(
        "mean", description="how the probabilities of a group's (a patient's) images become the group's"
    )
    backbone: str = Field(description="a card's or timm's name, hf-hub:ID, or the path of a card or folder")
    weights: str = Field("default", description="default (the published ones), random, or a file or folder")
    image_size: int = Field(gt=0, description="height and width of the fine view in pixels")
    normalize: str = Field(
        "backbone",
        description="mean and deviation: backbone, card (the dataset's), imagenet, half, clip, none or M,S",
    )
    training: TrainingConfig
    preload: bool = Field(description="whether frozen features are computed once; wherever the method can")
    cache_precision: Literal["fp32", "bf16", "fp16", "int8"] | None = Field(
        None, description="of preloaded features; none where nothing is preloaded"
    )
    cache_form: Literal["keys_values", "tokens"] = Field(
        "keys_values",
        description="of what is preloaded of important tokens: keys and values, or the tokens that they are linear in",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="seed of initial values, order, augmentation and dropout")
    device: Literal["cpu", "cuda", "mps"] = Field(description="where the run computes")
    threads: int = Field(gt=0, le=1024, description="threads of one operator; sums depend on it")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="of products: full, or by autocast")
    extract_precision: Literal["fp32", "bf16"] | None = Field(
        None,
        description="of the products of a frozen backbone that features come from; as precision where none is named",
    )
    attention_kernel: Literal["auto", "eager", "fused"] = Field(
        "auto", description="explicit attention or torch's fused kernels"
    )
    checkpointing: bool = Field(False, description="whether transformer blocks are computed again in backward")
    compile: bool = Field(False, description="whether torch.compile makes the trained module faster, for a wait first")
    calibrate: Literal["none", "temperature"] = Field(
        "none", description="what makes probabilities true after training, fitted on validation: none, or a temperature"
    )
    test_every_epoch: bool = Field(
        False, description="whether the test split is scored after every epoch, which only a protocol can ask for"
    )

    @field_validator("normalize")
    @classmethod
    def _check_normalize(cls, name: str) -> str:
        if not re.fullmatch(_NORMALIZE, name):
            raise PydanticCustomError("bad_normalize", "it is none of the names, and no two or six numbers")
        return name

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of this config."""
        values = without_later(self.model_dump(mode="json"))
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def features_precision(self) -> str:
        """The precision of the products that frozen features come from."""
        return self.extract_precision or self.precision

    @property
    def part(self) -> str:
        """What it is trained on, where labels are few: ``5 shots`` or ``10 %``; empty for the whole training split."""
        return part_name(self.shots, self.train_fraction)

    @property
    def dataset_name(self) -> str:
        """A short name of the dataset for titles and run ids, which are names of folders and have their bounds."""
        name = self.dataset.rstrip("/").rpartition("/")[2].partition(".")[0]
        return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:_LONGEST_NAME]

    @property
    def run_id(self) -> str:
        """The name of the run: readable in front, its digest behind."""
        return f"{self.method}-{self.dataset_name or 'dataset'}-s{self.seed}-{self.digest[:12]}"


def without_later(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a config without fields that came later and say what held before: as one of then has them."""
    kept = {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}
    for path, earlier in _LATER.items():
        part, _, name = path.rpartition(".")
        fields = kept.get(part, {}) if part else kept
        if name in fields and fields[name] == earlier:
            del fields[name]
    return kept


def part_name(shots: int, fraction: float) -> str:
    """What a part of the training split is called in tables; empty for the whole."""
    return f"{shots} shot{'s'[: shots > 1]}" if shots else f"{100 * fraction:g} %" if fraction != 1 else ""


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Derive an independent seed for one purpose from the seed of a run.

    Args:
        seed: The run's seed.
        purpose: What the random numbers are for, for example ``("epoch", 3)``.

    Returns:
        A seed below 2**63.
    """
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def validate_settings(model: type[M], values: Mapping[str, Any], owner: str) -> M:
    """Build a settings model from plain values.

    Args:
        model: The pydantic model, which refuses unknown keys.
        values: Values by key; strings are converted to the field's type.
        owner: Whose settings these are, for the error.

    Raises:
        InputError: When a key is unknown or a value is out of bounds.
    """
    for key in values:
        if key not in model.model_fields:
            names = model.model_fields
            hint = unknown_name("setting", key, names).hint if names else f"{owner} has no settings"
            raise InputError(f"{owner} has no setting '{key}'", hint=hint, kind="unknown_setting")
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        fault, path = first["msg"].removeprefix("Value error, "), [str(part) for part in first["loc"]]
        described = {name: field.description for name, field in model.model_fields.items() if field.description}
        raise InputError(
            f"{owner}: {'.'.join(path)} = {first['input']!r} is refused: {fault}" if path else f"{owner}: {fault}",
            hint=f"{path[0]}: {described[path[0]]}" if path and path[0] in described else "",
            kind="bad_setting",
        ) from error
