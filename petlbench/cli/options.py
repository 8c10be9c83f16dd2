"""Options that several commands share; those of a run are made from the fields of its config."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import click

from petlbench.cli.completion import names_of
from petlbench.cli.output import say
from petlbench.core.environment import default_cache_dir, default_data_root
from petlbench.core.errors import InputError, unknown_name
from petlbench.core.user_files import user_path

_MEBIBYTE = 2**20
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_FORM = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt]?)(i?)b)?", re.IGNORECASE)


class _Size(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # generic in new versions of click
    """Bytes, written with a unit: ``8GiB`` (1024), ``8GB`` (1000), or none; not fewer than the least."""

    name = "size"

    def __init__(self, least: int) -> None:
        self.least = least

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = _FORM.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"'{value}' is no size: write 8GiB, 15.77GiB, 8192MiB, 8GB or a number of bytes", param, ctx)
        number, prefix, binary = match.groups(default="")
        if match[2] is None and 0 < float(number) < _MEBIBYTE:
            self.fail(f"{value} bytes? Write {value}GiB, or {value}B where they are meant", param, ctx)
        size = int(Decimal(number) * (1024 if binary else 1000) ** _POWERS[prefix.lower()])
        if size < self.least:
            self.fail(f"'{value}' is less than one byte", param, ctx)
        return size


SIZE = _Size(1)
SIZE_OR_NOTHING = _Size(0)


CACHE_SIZE_VARIABLE = "PETLBENCH_CACHE_SIZE"
PRESETS = click.Choice(["as-published", "best-practice", "any"])


class _Place(click.Path):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        return user_path(value, what=param.opts[-1] if param is not None and param.opts else "the path")


PLACE = _Place()


catalog_option = click.option(
    "--catalog",
    type=PLACE,
    multiple=True,
    metavar="DIR",
    help="Folder with your own methods, datasets, sweeps and reports; may be given several times.",
)
cache_dir_option = click.option(
    "--cache-dir",
    type=PLACE,
    default=default_cache_dir,
    metavar="DIR",
    help="Folder of preloaded features and stored images, which runs share.  "
    "[default: $PETLBENCH_CACHE or the user's cache folder]",
)
cache_images_option = click.option(
    "--cache-images",
    type=click.Choice(["ram", "disk", "none"]),
    default="ram",
    show_default=True,
    help="Where resized images are kept: in up to a quarter of the free memory, in --cache-dir, or nowhere.",
)
measure_inference_option = click.option(
    "--measure-inference",
    type=click.Choice(["auto", "full", "off"]),
    default="auto",
    show_default=True,
    help="Time and memory of prediction: within 2 s or a fiftieth of the run, in full, or not at all.",
)
cache_size_option = click.option(
    "--cache-size",
    type=SIZE,
    envvar=CACHE_SIZE_VARIABLE,
    metavar="SIZE",
    help="Largest size of that folder, such as 50GB; what was not used for longest goes first.  "
    f"[default: ${CACHE_SIZE_VARIABLE} or no bound]",
)
data_root_option = click.option(
    "--data-root",
    type=PLACE,
    default=default_data_root,
    metavar="DIR",
    help="Folder below which datasets lie.  [default: $PETLBENCH_DATA or ./data]",
)
download_option = click.option(
    "--download", is_flag=True, help="Fetch the backbone's weights from the hub where they are not on this machine."
)
json_option = click.option("--json", is_flag=True, help="One JSON document on standard output.")
output_option = click.option(
    "--output", type=PLACE, default=Path("results"), show_default=True, metavar="DIR", help="Folder of the results."
)
setting_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="GROUP.KEY=VALUE",
    help="Any setting of the groups method, dataset and training; may be given several times.",
)


def _pairs(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str] | None:
    """``KEY=VALUE`` as a mapping; None where none is given."""
    pairs = {}
    for text in values:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not (key and equals):
            message, hint = f"--test-set {text}: not of the form KEY=VALUE", "for example --test-set label_column=grade"
            raise InputError(message, hint=hint, kind="bad_setting")
        pairs[key] = value
    return pairs or None


test_set_option = click.option(
    "--test-set",
    multiple=True,
    callback=_pairs,
    metavar="KEY=VALUE",
    help="A setting of the external test set, such as label_column=grade; may be given several times.",
)


def parse_assignments(assignments: Iterable[str], groups: tuple[str, ...] | None = None) -> dict[str, dict[str, str]]:
    """Sort ``--set group.key=value`` into a mapping for each of the groups, or for whatever is named."""
    by_group: dict[str, dict[str, str]] = {group: {} for group in groups or ()}
    for text in assignments:
        path, equals, value = text.partition("=")
        group, dot, key = path.strip().partition(".")
        if not (equals and dot and key):
            message, hint = f"--set {text}: not of the form GROUP.KEY=VALUE", "for example --set method.rank=8"
            raise InputError(message, hint=hint, kind="bad_setting")
        if groups is not None and group not in groups:
            raise unknown_name("setting group", group, groups)
        if key in by_group.get(group, {}):
            message = f"--set gives {group}.{key} twice: {by_group[group][key]} and {value.strip()}"
            raise InputError(message, hint="give it once", kind="bad_setting")
        by_group.setdefault(group, {})[key] = value.strip()
    return by_group


F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--executor",
        default="local",
        show_default=True,
        metavar="NAME",
        help="Where runs are carried out: local, ray or one of your own (--catalog).",
    ),
    click.option(
        "--workers",
        type=click.IntRange(0, 1024),
        default=1,
        show_default=True,
        help="Runs at the same time, each in a process of its own; 0 for this process.",
    ),
    click.option("--ray-address", metavar="ADDRESS", help="Of a Ray cluster.  [default: one of this machine]"),
    click.option("--cpus-per-run", type=click.FloatRange(0), default=1, show_default=True, help="For --executor ray."),
    click.option("--gpus-per-run", type=click.FloatRange(0), default=0, show_default=True, help="For --executor ray."),
    click.option(
        "--timeout", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="Stop a run after that."
    ),
)


def executor_options(function: F) -> F:
    """Give a command the options of `petlbench.study.executors.job.open_executor`, and a time limit for each run."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


A = TypeVar("A")


def parse_list(text: str, option: str, kind: Callable[[str], A]) -> list[A]:
    """Read the entries of an option, with commas between them; each once, and one at least."""
    entries = list(dict.fromkeys(kind(part.strip()) for part in text.split(",") if part.strip()))
    if not entries:
        raise InputError(f"{option} '{text}' names nothing", hint="put commas between names", kind="usage")
    return entries


def list_option(*names: str, **attributes: Any) -> Callable[[F], F]:
    """An option that may be given several times: its value is all of it, with commas between the entries."""

    def join(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> str | None:
        for value in values:
            parse_list(value, parameter.opts[0], str)
        return ",".join(values) if values else None

    return click.option(*names, multiple=True, callback=join, **attributes)


def methods_option(*, flag: str = "--method", note: str = "", **attributes: Any) -> Callable[[F], F]:
    """An option that names methods, which shells complete; ``note`` stands behind its help."""
    text = f"Names of methods, with commas between them, or all.{note}"
    return list_option(flag, "methods", help=text, shell_complete=names_of("method"), **attributes)


def datasets_option(**attributes: Any) -> Callable[[F], F]:
    """An option that names datasets, which shells complete."""
    text = "Names, folders, CSVs or cards, with commas between them."
    return list_option("--dataset", "datasets", help=text, shell_complete=names_of("dataset"), **attributes)


_FIELDS = (
    click.option(
        "--protocol",
        metavar="NAME|FILE",
        shell_complete=names_of("protocol"),
        help="What runs of one table have in common (petlbench list protocols); options go before its fields.",
    ),
    click.option(
        "--recipe",
        metavar="NAME",
        help="What a method's authors run, such as published (petlbench list recipes); options go before it.",
    ),
)


def protocol_options(function: F) -> F:
    """Give a command what says together how runs are to be: a protocol, and the methods' recipes."""
    for option in reversed(_FIELDS):
        function = option(function)
    return function


_CONFIG = Path(__file__).parents[1] / "core" / "config.py"
# Fields that commands take in another form, that one of them alone has, or that a protocol alone can set.
_OTHERWISE = ("method", "method_settings", "dataset", "dataset_settings", "seed", "training", "test_every_epoch")
_METHODS_OWN = "the method's"
# What holds where an option is left out, as far as the field itself does not say.
_DEFAULTS = {
    "backbone": "the papers' ViT-B/16",
    "image_size": "the card's, else the backbone's",
    "lr": _METHODS_OWN,
    "weight_decay": _METHODS_OWN,
    "decay": _METHODS_OWN,
    "split": "the card's",
    "device": "auto",
    "threads": "cores, at most 8",
    "preload": "on",
    "cache_precision": "int8",
    "cache_form": "auto",
}
# What a request may say beside what a config may.
_ALSO = {"extract_precision": "auto"}
_TYPES: Mapping[str, Any] = {"int": int, "float": float, "str": str}
# Names that went with an earlier version, and what they are called now.
_OLD_VALUES = {("weights", "none"): "random"}


def run_options(function: F, several: Collection[str] = ()) -> F:
    """Give a command all options of a run but its method, dataset and seed: one a field of the config.

    Args:
        function: The command.
        several: Fields of which it takes several values, as one text with commas between them.
    """
    shared = (
        setting_option,
        test_set_option,
        data_root_option,
        cache_dir_option,
        cache_size_option,
        cache_images_option,
        measure_inference_option,
        output_option,
    )
    tracking = click.option(
        "--tracking-uri", help="MLflow: an address, or none.  [default: a file in the output folder]"
    )
    for option in reversed([*_config_options(several), *shared, tracking, catalog_option]):
        function = option(function)
    return function


def request_values(values: Mapping[str, Any], training: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `petlbench.core.request.Request` that options name, and training settings of ``--set``."""
    fields = {name: value for name, value in values.items() if value is not None}
    for (name, old), new in _OLD_VALUES.items():  # the old ones work for one version
        if fields.get(name) == old:
            say(f"note: --{name} {old} is called {new} now, and goes with the next version", err=True)
            fields[name] = new
    return {**fields, "training": training} if training else fields


def _config_options(several: Collection[str]) -> Iterator[Callable[[F], F]]:
    """Make an option of every field of a config, as the syntax tree has it.

    Help texts would take twice as long if they imported pydantic.
    """
    tree = ast.parse(_CONFIG.read_text(encoding="utf-8"))
    for owner in reversed([node for node in tree.body if isinstance(node, ast.ClassDef)]):
        for field in owner.body:
            if isinstance(field, ast.AnnAssign) and (name := ast.unparse(field.target)) not in _OTHERWISE:
                annotation = "several" if name in several else ast.unparse(field.annotation)
                yield _option(name, annotation, _literals(field.value))


def _literals(value: ast.expr | None) -> dict[str, Any]:
    if not isinstance(value, ast.Call):
        return {}
    literals = {
        each.arg: each.value.value for each in value.keywords if each.arg and isinstance(each.value, ast.Constant)
    }
    first = value.args[0] if value.args else None
    return literals | ({"default": first.value} if isinstance(first, ast.Constant) else {})


def _option(name: str, annotation: str, field: Mapping[str, Any]) -> Callable[[F], F]:
    flag = f"--{name.replace('_', '-')}"
    default = _DEFAULTS.get(name, field.get("default"))
    text = str(field.get("description", name))
    text = f"{text[0].upper()}{text[1:]}."
    shown = f"  [default: {default}]" if default not in (None, "", False) else ""
    if annotation == "several":
        return list_option(flag, help=f"{text[:-1]}; several with commas between them.{shown}")
    if annotation in ("bool", "bool | None"):
        both = f"{flag}/--no-{name.replace('_', '-')}"
        return click.option(both, default=None, help=text + shown)
    choices = (
        [*ast.literal_eval(annotation[annotation.index("[") : annotation.index("]") + 1])]
        if "[" in annotation
        else None
    )
    if choices and name in _ALSO:
        choices.append(_ALSO[name])
    if choices and default not in (*choices, None, _METHODS_OWN):
        choices = [default, *choices]
    kind = click.Choice(choices) if choices else _TYPES[annotation]
    return click.option(flag, type=kind, help=text + shown)
