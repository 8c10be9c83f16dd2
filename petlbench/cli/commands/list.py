"""``petlbench list``: what the catalogues hold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from petlbench.cli.options import catalog_option, json_option, parse_list
from petlbench.cli.output import print_json, print_table, shortened
from petlbench.core.catalog import Catalog
from petlbench.core.entry import KIND_SPECS, Kind
from petlbench.core.errors import InputError
from petlbench.core.units import MISSING, mebibytes, percent

if TYPE_CHECKING:
    from petlbench.core.entry import Entry
    from petlbench.models.compatibility import Compatibility
    from petlbench.study.forecast.backbones import Suitability

_KINDS: dict[str, Kind] = {spec.folder: kind for kind, spec in KIND_SPECS.items()}
# Reports of that kind.
_SUITES = "suites"
_COLUMNS: dict[Kind, tuple[str, ...]] = {
    "method": ("family", "year", "paper"),
    "dataset": ("modality", "task", "licence"),
    "metric": ("direction",),
    "backbone": ("family", "domain", "parameters", "gated", "licence"),
    "format": ("suffix",),
    "protocol": ("sweep",),
    "recipe": ("source",),
}
# Kinds whose cards are all that there is of them.
_WHOLE: tuple[Kind, ...] = ("protocol", "recipe")


@click.command("list", epilog="Example: petlbench list methods --backbone vit_base_patch16_384 --classes 7")
@click.argument("what", type=click.Choice([*_KINDS, _SUITES]))
@click.option("--method", help="Show the settings of this method; with backbones: what these methods learn on each.")
@click.option("--backbone", help="Show what each method learns on this backbone, or why it cannot.")
@click.option("--image-size", type=int, help="Pixels, for --backbone.  [default: the backbone's]")
@click.option("--classes", type=click.IntRange(2, 100_000), default=2, show_default=True, help="For --backbone.")
@catalog_option
@json_option
def command(
    what: str,
    method: str | None,
    backbone: str | None,
    image_size: int | None,
    classes: int,
    catalog: tuple[Path, ...],
    json: bool,
) -> None:
    """List what the catalogues hold of a kind, such as methods or datasets: the shipped ones and your own."""
    catalogs = Catalog(catalog)
    if what == "backbones" and backbone is None and method is not None:
        _backbones(catalogs, parse_list(method, "--method", str), image_size, classes, json)
        return
    if (method is not None or backbone is not None) and what != "methods":
        raise InputError(
            f"--method and --backbone go with petlbench list methods, --method with backbones, too, not with {what}",
            hint="see petlbench list --help",
            kind="usage",
        )
    if backbone is not None:
        _on_backbone(catalogs, backbone, image_size, classes, json)
        return
    if method is not None:
        _settings(catalogs.find("method", method), json)
        return
    kind = _KINDS.get(what, "report")
    entries = _suites(catalogs) if what == _SUITES else list(catalogs.entries(kind).values())
    if json:
        print_json({"items": [_item(entry) for entry in entries]})
        return
    rows = [[*_described(entry), "" if entry.shipped else str(entry.file)] for entry in entries]
    headings = ["name", "title", *_COLUMNS.get(kind, ()), "file"]
    if all(entry.shipped for entry in entries):
        headings, rows = headings[:-1], [row[:-1] for row in rows]
    print_table(what, headings, rows)


def _suites(catalog: Catalog) -> list[Entry]:
    from petlbench.report.spec import suites

    return list(suites(catalog).values())


def _on_backbone(catalog: Catalog, backbone: str, image_size: int | None, classes: int, json: bool) -> None:
    from petlbench.core.progress_bars import ShownProgress
    from petlbench.models.compatibility import methods_on

    with ShownProgress() as progress:
        progress.phase("methods", len(catalog.entries("method")))
        info = methods_on(catalog, backbone, image_size, classes, progress.advance)
    answers = info.answers
    if json:
        counts = [answer.parameters and answer.parameters.model_dump(mode="json") for answer in answers]
        items = [
            {**_item(each.entry), "suits": each.reason is None, "reason": each.reason, "parameters": count}
            for each, count in zip(answers, counts, strict=True)
        ]
        print_json({"items": items, "backbone": info.name, "image_size": info.image_size, "classes": classes})
        return
    rows = [[*_described(answer.entry), *_learned(answer, info.name)] for answer in answers]
    title = f"methods on {info.name} at {info.image_size} pixels, {classes} classes"
    columns = ["name", "title", "family", "year", "paper", "learnable>", "of all, %>", "why not"]
    if all(answer.reason is None for answer in answers):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    print_table(title, columns, rows)


def _backbones(catalog: Catalog, methods: list[str], image_size: int | None, classes: int, json: bool) -> None:
    from petlbench.core.progress_bars import ShownProgress
    from petlbench.study.forecast.backbones import predict_backbones

    answers = []
    with ShownProgress() as progress:
        progress.phase("backbones", len(catalog.entries("backbone")))
        for answer in predict_backbones(catalog, methods, classes, {"image_size": image_size}):
            answers.append(answer)
            progress.advance()
    if json:
        items = [{**_item(entry), "methods": [each.document() for each in suits]} for entry, suits in answers]
        print_json({"items": items, "classes": classes})
        return
    rows = [
        [entry.name, each.method, *_predicted(each), each.reason or ""] for entry, suits in answers for each in suits
    ]
    columns = ["name", "method", "pixels>", "learnable>", "of all, %>", "memory, MiB>", "why not"]
    print_table(f"what methods learn and take, batch of 16, {classes} classes (predicted)", columns, rows)


def _predicted(answer: Suitability) -> list[str]:
    if answer.parameters is None or answer.memory is None:
        return [MISSING] * 4
    learnable, ratio = answer.parameters.learnable, answer.parameters.ratio
    return [str(answer.image_size), f"{learnable:,}", percent(ratio, 3), mebibytes(answer.memory.allocated)]


def _described(entry: Entry) -> list[str]:
    return [entry.name, entry.title, *(shortened(_shown(entry, column)) for column in _COLUMNS.get(entry.kind, ()))]


def _shown(entry: Entry, column: str) -> str:
    value = _field(entry, column)
    if isinstance(value, bool):
        return "yes" if value else ""
    return f"{value:,}" if isinstance(value, int) and column == "parameters" else "" if value is None else str(value)


def _field(entry: Entry, column: str) -> Any:
    """A field of a card; whether weights are gated stands beside where they are."""
    if column == "gated":
        source = entry.card.get("source")
        return isinstance(source, dict) and source.get("gated") is True
    return entry.card.get(column)


def _learned(answer: Compatibility, backbone: str) -> list[str]:
    if answer.parameters is None:
        return [MISSING, MISSING, (answer.reason or "").removeprefix(f"{backbone} ")]
    return [f"{answer.parameters.learnable:,}", percent(answer.parameters.ratio, 3), ""]


def _item(entry: Entry) -> dict[str, Any]:
    shown = {key: _field(entry, key) for key in (*_COLUMNS.get(entry.kind, ()), "family", "year", "paper")}
    whole = dict(entry.card) if entry.kind in _WHOLE else {}
    return {**whole, "name": entry.name, "title": entry.title, **shown, "file": str(entry.file)}


def _settings(entry: Entry, json: bool) -> None:
    from petlbench.models.method import load_method

    schema = load_method(entry).Settings.model_json_schema()
    settings = [_setting(name, values) for name, values in schema.get("properties", {}).items()]
    if json:
        print_json({"items": [_item(entry)], "settings": settings})
        return
    rows = [[row["name"], str(row["default"]), row["bounds"], row["description"]] for row in settings]
    print_table(f"{entry.title}: settings, for --set method.NAME=VALUE", ["name", "default", "bounds", "meaning"], rows)


def _setting(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    # A setting that may be left empty is a choice between its type and null.
    typed: dict[str, Any] = next((part for part in schema.get("anyOf", []) if part.get("type") != "null"), schema)
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {typed[key]:g}" for key, sign in words.items() if key in typed]
    if "enum" in typed:
        bounds.append(" | ".join(map(str, typed["enum"])))
    if typed.get("type") == "boolean":
        bounds.append("true | false")
    if "bounds" in schema:
        bounds.append(schema["bounds"])
    return {
        "name": name,
        "type": typed.get("type", ""),
        "default": schema.get("default"),
        "bounds": ", ".join(bounds),
        "description": schema.get("description", ""),
        "search": schema.get("search"),
    }
