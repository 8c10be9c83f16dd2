"""The command line of a run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from petlbench.core.config import RunConfig
from petlbench.core.environment import default_data_root
from petlbench.core.errors import InputError
from petlbench.core.request import SETTINGS, Request
from petlbench.data.dataset import EXTERNAL
from petlbench.run.options import RunContext
from petlbench.run.resolve import resolve

# A choice may open another one (a backbone its normalisation), and that one none that is further.
_ROUNDS = 4


def command_of(config: RunConfig, context: RunContext) -> str:
    """The shortest ``petlbench run`` that is this run: what it says beside the defaults of this machine.

    Args:
        config: The run.
        context: Where it reads and writes; what is no default of the command line is named, too.
    """
    goal = {name: value for name, value in config.model_dump(mode="json").items() if value != ""}
    request = _without_defaults(goal, context)
    words = ["petlbench", "run"]
    for each in fields(Request):
        value = getattr(request, each.name)
        if each.name in SETTINGS:
            words += [word for setting in value.items() for word in _setting(each.name, *setting)]
        elif value != each.default:
            words += _option(each.name, value)
    return shlex.join([*words, *_places(context)])


def _without_defaults(goal: Mapping[str, Any], context: RunContext) -> Request:
    """The request that names least and is resolved to the goal."""
    values = {name: goal[name] for name in ("method", "dataset", "backbone", "image_size")}
    for _ in range(_ROUNDS):
        request = Request(**values)
        try:
            reached = resolve(request, context.catalog, context.options.data_root).config.model_dump(mode="json")
        except InputError:  # what is left out here is a choice that must be made
            return Request(**goal)
        for name in SETTINGS:
            own = {key: value for key, value in goal.get(name, {}).items() if reached[name].get(key) != value}
            values[name] = {**values.get(name, {}), **own}
        missing = {name: value for name, value in goal.items() if name not in SETTINGS and reached[name] != value}
        if not missing and all(values[name] == getattr(request, name) for name in SETTINGS):
            break
        values |= missing
    return request


def _option(name: str, value: Any) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", str(value)]


def _setting(group: str, key: str, value: Any) -> Iterator[str]:
    if value is None:  # what a setting is where nothing is said
        return
    if group == "training":
        yield from _option(key, value)
    elif group == "dataset_settings" and key.startswith(EXTERNAL):
        yield from ("--test-set", f"{key.removeprefix(EXTERNAL)}={value}")
    else:
        yield from ("--set", f"{group.removesuffix('_settings')}.{key}={value}")


def _places(context: RunContext) -> Iterator[str]:
    """Where the run finds its data and its catalogues, and where its result goes."""
    options = context.options
    for folder in options.catalogs:
        yield from ("--catalog", str(folder))
    if options.data_root != default_data_root():
        yield from ("--data-root", str(options.data_root))
    if str(options.output) != "results":
        yield from ("--output", str(options.output))
