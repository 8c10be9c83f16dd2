"""What a user asks of a run before anything is looked up: by keywords, options of the command line, or a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from petlbench.core.errors import InputError, unknown_name
from petlbench.core.user_files import read_toml

AUTO_FORM = "auto"
"""The form of preloaded features that is left to the disk."""

SETTINGS = ("training", "method_settings", "dataset_settings", "test_set")
"""The fields of a request that are tables."""

# ViT-B/16 of ImageNet-21k, fine-tuned at 384: the checkpoint that the FPT papers adapt. timm's own default for the
# bare name is the AugReg recipe, which is another model.
DEFAULT_BACKBONE = "vit_base_patch16_384.orig_in21k_ft_in1k"


@dataclass(frozen=True)
class Request:
    """What a user asked for; None and what is left out take their defaults.

    The fields are those of `petlbench.core.config.RunConfig`, which says what they are, before anything is looked up:
    ``dataset`` is a name, folder, table or card as it was written, or None where no image is to be read and the number
    of classes is known; ``device``, ``cache_form`` and ``extract_precision`` may be ``auto``; ``preload`` None is
    wherever the method can; ``test_set`` has the settings of the external test set, which are ``test_on.…`` of a
    config's ``dataset_settings``.
    """

    method: str
    dataset: str | None = None
    backbone: str = DEFAULT_BACKBONE
    weights: str = "default"
    image_size: int | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    method_settings: Mapping[str, Any] = field(default_factory=dict)
    dataset_settings: Mapping[str, Any] = field(default_factory=dict)
    split: str | None = None
    split_seed: int = 0
    shots: int | None = None
    train_fraction: float | None = None
    draw: int | None = None
    shots_val: bool = False
    train_on: str = "train"
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    precision: str = "fp32"
    extract_precision: str | None = None
    attention_kernel: str = "auto"
    checkpointing: bool = False
    compile: bool = False
    normalize: str | None = None
    preload: bool | None = None
    cache_precision: str | None = None
    cache_form: str = AUTO_FORM
    skip_corrupt: bool = False
    test_on: str | None = None
    aggregate: str = "mean"
    test_set: Mapping[str, Any] = field(default_factory=dict)
    calibrate: str = "none"
    test_every_epoch: bool = False


@dataclass(frozen=True)
class Tuned:
    """Settings of the training and of the method by name, found by a search or run by authors; a user's go before them.

    Args:
        sweep: Name of the sweep that found them; empty for none.
        recipe: Name of the recipe that they are; empty for none.
        refusal: Why there are none, where that is so; empty where there are.
        failed: Whether that is since a search failed, rather than since there is nothing to be had.
    """

    training: Mapping[str, Any] = field(default_factory=dict)
    method: Mapping[str, Any] = field(default_factory=dict)
    sweep: str = ""
    recipe: str = ""
    refusal: str = ""
    failed: bool = False

    def below(self, request: Request) -> Request:
        """The request with these settings where it has none of its own."""
        training, method = {**self.training, **request.training}, {**self.method, **request.method_settings}
        return replace(request, training=training, method_settings=method)


def request_of(values: Mapping[str, Any], origin: str) -> Request:
    """A request from plain values, in which settings of the training may stand beside the fields of the request.

    Args:
        values: Fields of `Request`, and of `petlbench.core.config.TrainingConfig`, by name; None is left out.
        origin: Who asks, for the error: ``run()``, or a file.

    Raises:
        InputError: When a name is unknown, or a table is none.
    """
    values = with_training(values, origin)
    names = {each.name for each in fields(Request)}
    for name in values:
        if name not in names:
            hint = unknown_name("setting", name, names | _training_names()).hint
            raise InputError(f"{origin} has no setting '{name}'", hint=hint, kind="unknown_setting")
    if "method" not in values:
        hint = "see petlbench list methods"
        raise InputError(f"{origin} names no method", hint=hint, kind="unknown_method")
    return Request(**values)


def with_training(values: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """The values without those that are None, and all settings of the training in their table.

    Raises:
        InputError: When a setting stands in the table and beside it, with two values, or the table is none.
    """
    values = {name: value for name, value in values.items() if value is not None}
    for name in SETTINGS:
        if not isinstance(values.get(name, {}), Mapping):
            raise InputError(f"{origin}: {name} is no table of settings", kind="bad_setting")
    table = values.get("training", {})
    settings = {name: values.pop(name) for name in _training_names() & set(values)}
    for name, value in settings.items():
        if str(table.get(name, value)) != str(value):
            message = f"{origin} gives {name} twice: {value} and, as training.{name}, {table[name]}"
            raise InputError(message, hint="give it once", kind="bad_setting")
    return {**values, "training": {**table, **settings}}


def _training_names() -> set[str]:
    from petlbench.core.config import TrainingConfig

    return set(TrainingConfig.model_fields)


def read_request(file: Path) -> dict[str, Any]:
    """The values of a run file: TOML, with the fields of `request_of`.

    Args:
        file: The file, for example with ``method = "fpt"``, ``dataset = "digits"``, ``epochs = 5`` and a table
            ``[method_settings]``.

    Raises:
        InputError: When it cannot be read.
    """
    try:
        return read_toml(file, what="run file")
    except InputError as error:
        raise InputError(error.message, hint=error.hint, kind="bad_run_file") from error
