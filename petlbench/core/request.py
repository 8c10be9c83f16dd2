"""What a user asks of a run before anything is looked up: by keywords, options of the command line, or a file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from petlbench.core.errors import InputError, unknown_name

__all__ = ["DEFAULT_BACKBONE", "Request", "read_request", "request_of"]

# ViT-B/16 of ImageNet-21k, fine-tuned at 384: the checkpoint that the FPT papers adapt. timm's own default for the
# bare name is the AugReg recipe, which is another model.
DEFAULT_BACKBONE = "vit_base_patch16_384.orig_in21k_ft_in1k"


@dataclass(frozen=True)
class Request:
    """What a user asked for; None and what is left out take their defaults.

    The fields are those of `petlbench.core.config.RunConfig`, which says what they are, before anything is looked up:
    ``dataset`` is a name, folder, table or card as it was written, or None where no image is to be read and the number
    of classes is known; ``device`` may be ``auto``; ``preload`` None is wherever the method can.
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
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    precision: str = "fp32"
    attention_kernel: str = "auto"
    checkpointing: bool = False
    normalize: str = "backbone"
    preload: bool | None = None
    cache_precision: str | None = None
    skip_corrupt: bool = False
    test_on: str | None = None


def request_of(values: Mapping[str, Any], origin: str) -> Request:
    """A request from plain values, in which settings of the training may stand beside the fields of the request.

    Args:
        values: Fields of `Request`, and of `petlbench.core.config.TrainingConfig`, by name; None is left out.
        origin: Who asks, for the error: ``run()``, or a file.

    Raises:
        InputError: When a name is unknown, or a table is none.
    """
    from petlbench.core.config import TrainingConfig

    names, training = {each.name for each in fields(Request)}, set(TrainingConfig.model_fields)
    values = {name: value for name, value in values.items() if value is not None}
    for name in values:
        if name not in names | training:
            hint = unknown_name("setting", name, names | training).hint
            raise InputError(f"{origin} has no setting '{name}'", hint=hint, kind="unknown_setting")
    for name in ("training", "method_settings", "dataset_settings"):
        if not isinstance(values.get(name, {}), Mapping):
            raise InputError(f"{origin}: {name} is no table of settings", kind="bad_setting")
    settings = {name: value for name, value in values.items() if name in training}
    rest = {name: value for name, value in values.items() if name not in training}
    if "method" not in rest:
        hint = "see petlbench list methods"
        raise InputError(f"{origin} names no method", hint=hint, kind="unknown_method")
    return Request(**{**rest, "training": {**rest.get("training", {}), **settings}})


def read_request(file: Path) -> dict[str, Any]:
    """The values of a run file: TOML, with the fields of `request_of`.

    Args:
        file: The file, for example with ``method = "fpt"``, ``dataset = "digits"``, ``epochs = 5`` and a table
            ``[method_settings]``.

    Raises:
        InputError: When it cannot be read.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"the run file {file} cannot be read: {error.strerror}", kind="bad_run_file") from error
    except ValueError as error:
        raise InputError(f"the run file {file} is no TOML: {error}", kind="bad_run_file") from error
