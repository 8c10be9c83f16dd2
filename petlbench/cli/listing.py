"""``petlbench list``: what the catalogues hold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from petlbench.catalog import Catalog, Kind
from petlbench.cli.options import catalog_option, json_option
from petlbench.cli.output import print_json, print_table, shortened

if TYPE_CHECKING:
    from petlbench.catalog import Entry

__all__ = ["command"]

_KINDS: dict[str, Kind] = {"methods": "method", "datasets": "dataset", "sweeps": "sweep", "reports": "report"}
_COLUMNS: dict[Kind, tuple[str, ...]] = {
    "method": ("family", "year", "paper"),
    "dataset": ("modality", "task", "licence"),
    "sweep": (),
    "report": (),
}


@click.command("list", epilog="Example: petlbench list methods --method fpt")
@click.argument("what", type=click.Choice(list(_KINDS)))
@click.option("--method", help="Show the settings of this method.")
@catalog_option
@json_option
def command(what: str, method: str | None, catalog: tuple[Path, ...], json: bool) -> None:
    """List methods, datasets, sweeps or reports: the shipped ones and your own."""
    found = Catalog(catalog)
    if method is not None:
        _settings(found.find("method", method), json)
        return
    kind = _KINDS[what]
    entries = list(found.entries(kind).values())
    if json:
        print_json({"items": [_item(entry) for entry in entries]})
        return
    columns = _COLUMNS[kind]
    rows = [
        [entry.name, entry.title, *(shortened(str(entry.card.get(column, ""))) for column in columns), _origin(entry)]
        for entry in entries
    ]
    headings = ["name", "title", *columns, "file"]
    if all(entry.shipped for entry in entries):
        headings, rows = headings[:-1], [row[:-1] for row in rows]
    print_table(what, headings, rows)


def _item(entry: Entry) -> dict[str, Any]:
    shown = {key: entry.card.get(key) for key in (*_COLUMNS[entry.kind], "family", "year", "paper")}
    return {"name": entry.name, "title": entry.title, **shown, "file": str(entry.file)}


def _origin(entry: Entry) -> str:
    return "" if entry.shipped else str(entry.file)


def _settings(entry: Entry, json: bool) -> None:
    from petlbench.method import load_method

    schema = load_method(entry).Settings.model_json_schema()
    settings = (
        [_setting(name, values) for name, values in schema["properties"].items()] if "properties" in schema else []
    )
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
    return {
        "name": name,
        "type": typed.get("type", ""),
        "default": schema.get("default"),
        "bounds": ", ".join(bounds),
        "description": schema.get("description", ""),
        "search": schema.get("search"),
    }
