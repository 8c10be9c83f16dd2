"""``petlbench list`` and every help text: at once, without the heavy packages, and with an example."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from petlbench.cli.app import app
from petlbench.core.catalog import Catalog

Cli = Callable[..., Any]
Refused = Callable[..., dict[str, str]]

HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "peft",
    "mlflow",
    "pandas",
    "numpy",
    "sklearn",
    "pyarrow",
    "optuna",
    "pydantic",
)
# What a fresh interpreter has loaded after a command.
PROBE = """
import json, sys
from petlbench.cli.app import run_command
sys.stdout, stdout = sys.stderr, sys.stdout
status = run_command(sys.argv[1:])
ours = [name for name in sys.modules if name.partition(".")[0] == "petlbench"]
print(json.dumps({"status": status, "modules": sorted({name.partition(".")[0] for name in sys.modules}),
                  "ours": sorted(ours)}), file=stdout)
"""


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command and group, as the words behind ``petlbench``."""
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, (*path, name))


COMMANDS = list(commands(app))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_help_text_carries_an_example(cli: Cli, words: tuple[str, ...]) -> None:
    outcome = cli(*words, "--help")
    assert outcome.status == 0
    assert f"Example: petlbench {' '.join(words)}".strip() in " ".join(outcome.out.split())


def test_the_commands_are_those_that_are_promised() -> None:
    assert {("run",), ("predict",), ("list",), ("doctor",), ("data", "info")} <= set(COMMANDS)


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["list", "methods"], ["list", "backbones"]])
def test_help_and_lists_load_no_heavy_package(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["status"] == 0
    assert sorted(set(HEAVY) & set(found["modules"])) == []
    light = ("petlbench.cli", "petlbench.core")
    assert [name for name in found["ours"] if name != "petlbench" and not name.startswith(light)] == []


def test_methods_are_listed_with_their_cards(cli: Cli) -> None:
    outcome = cli("list", "methods", "--json")
    assert outcome.status == 0
    items = {item["name"]: item for item in outcome.document["items"]}
    assert {"full", "linear", "lora", "fpt", "fpt_plus"} <= set(items)
    assert list(items) == sorted(items)
    for item in items.values():
        assert set(item) >= {"name", "title", "family", "year", "paper", "file"}
        assert Path(item["file"]).is_file()
        assert item["paper"].startswith("https://")
    assert items["fpt_plus"]["title"] == "FPT+"
    assert items["fpt"]["file"] == items["fpt_plus"]["file"]


def test_the_table_shows_every_method(cli: Cli) -> None:
    outcome = cli("list", "methods")
    assert outcome.status == 0
    for name, entry in Catalog().entries("method").items():
        assert name in outcome.out
        assert entry.title in outcome.out
    assert outcome.err == ""


def test_backbones_are_listed_with_family_size_gate_and_licence(cli: Cli) -> None:
    items = {item["name"]: item for item in cli("list", "backbones", "--json").document["items"]}
    assert len(items) >= 60
    card = {"family": "DINOv2", "domain": "histopathology", "parameters": 303350784, "gated": True}
    assert {key: items["uni"][key] for key in card} == card
    assert items["uni"]["licence"] == "CC-BY-NC-ND-4.0"
    assert items["vit_base_patch16_224.mae"]["gated"] is False


def test_datasets_are_listed_with_modality_task_and_licence(cli: Cli) -> None:
    items = {item["name"]: item for item in cli("list", "datasets", "--json").document["items"]}
    assert {"digits", "lesions", "isic2018"} <= set(items)
    assert items["isic2018"]["modality"] == "dermoscopy"
    assert items["isic2018"]["task"] == "multiclass"
    assert items["isic2018"]["licence"] == "CC BY-NC 4.0"


@pytest.mark.parametrize("what", ["sweeps", "reports"])
def test_a_catalogue_may_be_empty(cli: Cli, what: str) -> None:
    outcome = cli("list", what, "--json")
    assert outcome.status == 0
    assert isinstance(outcome.document["items"], list)


def test_suites_are_reports_of_that_kind(cli: Cli) -> None:
    outcome = cli("list", "suites", "--json")
    assert [item["name"] for item in outcome.document["items"]] == ["fgvc", "vtab1k"]
    assert "table1" not in cli("list", "suites").out


def test_the_settings_of_a_method_are_shown_with_bounds_and_defaults(cli: Cli) -> None:
    settings = {row["name"]: row for row in cli("list", "methods", "--method", "fpt", "--json").document["settings"]}
    assert settings["token_ratio"]["default"] == 0.2
    assert settings["token_ratio"]["bounds"] == "> 0, ≤ 1"
    assert settings["num_prompts"]["default"] == 16
    assert settings["num_prompts"]["bounds"] == "≥ 1, ≤ 1024"
    assert settings["num_prompts"]["search"] == [8, 16, 32]
    assert settings["layers"]["bounds"] == "all | later_half | numbers as in 3,7,11"
    assert settings["side_only"]["bounds"] == "true | false"
    assert all(row["description"] for row in settings.values())


def test_a_setting_that_may_be_empty_shows_the_bounds_of_its_type(cli: Cli) -> None:
    settings = {row["name"]: row for row in cli("list", "methods", "--method", "lora", "--json").document["settings"]}
    assert settings["alpha"] == {**settings["alpha"], "type": "number", "default": None, "bounds": "> 0"}


def test_every_setting_of_every_method_is_described(cli: Cli) -> None:
    for name in Catalog().entries("method"):
        for row in cli("list", "methods", "--method", name, "--json").document["settings"]:
            assert row["description"], f"{name}.{row['name']}"
            assert row["bounds"], f"{name}.{row['name']}"


def test_a_backbone_shows_what_each_method_learns_on_it(cli: Cli) -> None:
    document = cli(
        "list", "methods", "--backbone", "test_vit", "--image-size", "32", "--classes", "7", "--json"
    ).document
    assert (document["backbone"], document["image_size"], document["classes"]) == ("test_vit.r160_in1k", 32, 7)
    items = {item["name"]: item for item in document["items"]}
    assert set(items) == set(Catalog().entries("method"))
    assert items["full"]["parameters"]["ratio"] == 1.0
    assert items["linear"]["parameters"]["learnable"] == 7 * 65
    assert all((item["reason"] is None) == item["suits"] == (item["parameters"] is not None) for item in items.values())


def test_a_backbone_shows_why_a_method_cannot_adapt_it(cli: Cli) -> None:
    outcome = cli("list", "methods", "--backbone", "swin_tiny_patch4_window7_224", "--image-size", "32")
    assert outcome.status == 0
    row = next(line for line in outcome.out.splitlines() if line.split()[:1] == ["vpt"])
    assert "has no tokens of one width" in row
    assert "swin" not in row


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["methods", "--backbone", "swin_tony_patch4_window7_224"], "swin_tony"),
        (["methods", "--backbone", "test_vit", "--image-size", "33"], "33"),
        (["methods", "--backbone", "test_vit", "--classes", "1"], "1"),
        (["datasets", "--backbone", "test_vit"], "datasets"),
        (["datasets", "--method", "fpt"], "datasets"),
    ],
)
def test_what_cannot_be_listed_is_refused(refused: Refused, arguments: list[str], said: str) -> None:
    assert said in refused("list", *arguments)["message"]


def test_the_settings_of_an_unknown_method_are_refused(refused: Refused) -> None:
    assert refused("list", "methods", "--method", "adaptfromer")["hint"].startswith("did you mean adaptformer")


CARD = """
class Mine(Method):
    card = MethodCard(name="mine", title="My method", family="own", year=2026, paper="https://example.org")
"""


def test_a_method_of_the_users_is_listed_with_its_file(cli: Cli, here: Path) -> None:
    (here / "own").mkdir()
    (here / "own" / "mine.py").write_text(CARD)
    outcome = cli("list", "methods", "--catalog", "own", "--json")
    item = next(item for item in outcome.document["items"] if item["name"] == "mine")
    assert item["title"] == "My method"
    assert item["file"] == str(here / "own" / "mine.py")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("methods/broken.py", "class Broken(:"),
        ("methods/computed.py", CARD.replace('"mine"', "NAME")),
        ("datasets/broken.toml", "title = "),
        ("datasets/nameless.toml", "modality = 'X-ray'"),
    ],
)
def test_a_broken_file_in_a_catalogue_is_named(refused: Refused, here: Path, name: str, text: str) -> None:
    file = here / "own" / name
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with_hint = f"list {file.parent.name} --catalog own".split()
    error = refused(*with_hint)
    assert error["kind"] == "broken_catalog"
    assert str(file) in error["message"]
