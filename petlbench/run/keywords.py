"""From keywords of the Python API to fields of a request: what was written in Python is registered, or kept, first."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from petlbench.core.catalog import Folder, folders_of, register
from petlbench.core.entry import MethodCard
from petlbench.core.environment import default_cache_dir, default_data_root
from petlbench.core.errors import unknown_name
from petlbench.core.request import SETTINGS, Request, read_request, request_of, with_training
from petlbench.core.user_files import user_path
from petlbench.run.options import RunOptions

if TYPE_CHECKING:
    from petlbench.core.config import RunConfig
    from petlbench.models.method import Method


T = TypeVar("T")

Settings = Mapping[str, Mapping[str, Any]]

TABLES = {"method": "method_settings", "dataset": "dataset_settings", "training": "training"}
"""Fields of a request by the groups that users set them in."""


def take(kind: type[T], options: Mapping[str, Any], but: Sequence[str] = ()) -> tuple[T, dict[str, Any]]:
    """What a dataclass has fields for, as one of it, apart from all other options."""
    names = {each.name for each in fields(cast("Any", kind))} - {*but}
    own = kind(**{name: value for name, value in options.items() if name in names})
    return own, {name: value for name, value in options.items() if name not in names}


def sort_options(options: Mapping[str, Any]) -> tuple[RunOptions, dict[str, Any]]:
    """What says where runs read and write, apart from what says how they are to be; None is left out."""
    places = {"output": "results", "data_root": default_data_root(), "cache_dir": default_cache_dir()}
    values = {**places, **{name: value for name, value in options.items() if value is not None}}
    values |= {name: user_path(values[name], what=f"--{name.replace('_', '-')}") for name in places}
    values["catalogs"] = folders_of(values.pop("catalog", ()))
    return take(RunOptions, values, but=("reveal_test", "experiment", "group", "origin"))


def _values_of(config: Folder | RunConfig | Mapping[str, Any] | None) -> dict[str, Any]:
    """Fields of a request from a run file, a config or a mapping."""
    if config is None:
        return {}
    if isinstance(config, str | Path):
        return read_request(Path(config))
    values = dict(config if isinstance(config, Mapping) else config.model_dump(mode="json"))
    return {name: value for name, value in values.items() if value != ""}  # a config writes "" for what there is not


def _named(method: str | Method[Any] | None, dataset: Any, options: RunOptions) -> dict[str, Any]:
    """Method and dataset as a request names them; what was written in Python is registered or kept first."""
    values: dict[str, Any] = {}
    if isinstance(method, str):
        values["method"] = method
    elif method is not None:
        register(with_card(type(method)))
        values |= {"method": method.card.name, "method_settings": method.settings.model_dump(mode="json")}
    if isinstance(dataset, str | os.PathLike):
        values["dataset"] = str(dataset)
    elif dataset is not None:
        from petlbench.data.from_python import keep_dataset
        from petlbench.run.data import KEPT

        values["dataset"] = str(keep_dataset(dataset, options.output / KEPT))
    return values


def with_card(method: type[Method[Any]]) -> type[Method[Any]]:
    """A method's class, which gets a card from its own name where it was written without one."""
    if "card" not in vars(method):
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", method.__name__).lower()
        summary = (method.__doc__ or "").strip().partition("\n")[0]
        method.card = MethodCard(name=name, title=method.__name__, family="own", year=0, paper="", summary=summary)
    return method


def dataset_names(datasets: Any, options: RunOptions) -> list[str]:
    """One or several datasets as requests name them."""
    several = datasets if isinstance(datasets, list | tuple) and not _is_pairs(datasets) else [datasets]
    return list(dict.fromkeys(_named(None, dataset, options)["dataset"] for dataset in several))


def _is_pairs(datasets: Sequence[Any]) -> bool:
    """Whether a sequence is one dataset, of pairs of image and label, rather than several."""
    return bool(datasets) and isinstance(datasets[0], list | tuple) and len(datasets[0]) == 2


def merged_values(
    method: str | Method[Any] | None,
    dataset: Any,
    config: Folder | RunConfig | Mapping[str, Any] | None,
    options: RunOptions,
    values: Mapping[str, Any],
) -> dict[str, Any]:
    """Fields of a request as a run file or config has them, and keywords before it.

    Raises:
        InputError: When a setting is given twice, or the file cannot be read.
    """
    stored, values = with_training(_values_of(config), str(config)), with_training(values, "the command")
    tables = {name: {**stored[name], **values[name]} for name in SETTINGS if name in stored and name in values}
    return {**stored, **values, **tables, **_named(method, dataset, options)}


def by_group(settings: Settings, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Settings of every group: methods, datasets and the training, and single names; there are no others."""
    groups = (*TABLES, *names)
    for group in settings:
        if group not in groups:
            raise unknown_name("setting group", group, groups)
    return {group: dict(settings.get(group, {})) for group in groups}


def common_request(
    values: Mapping[str, Any], own: Mapping[str, Any], groups: Mapping[str, Mapping[str, Any]], origin: str
) -> Request:
    """What holds for all runs: values go before settings, and these before what a report has of its own."""
    own, training = with_training(own, origin), {**groups["training"], **values.get("training", {})}
    values = with_training({**values, "training": training}, origin)
    tables = {key: {**own.get(key, {}), **groups[name], **values.get(key, {})} for name, key in TABLES.items()}
    return request_of({"method": "", **own, **values, **tables}, origin)
