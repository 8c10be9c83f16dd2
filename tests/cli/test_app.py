"""Every command has its function in the Python API, and calls it."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator

import click
import pytest

import petlbench as pb
from petlbench.cli.app import app

FUNCTIONS = {
    "run": {"run", "dry_run"},
    "bench": {"bench", "preview_bench", "preview_bench_search"},
    "sweep": {"sweep", "preview_sweep"},
    "report": {"report"},
    "pack": {"pack"},
    "verify-pack": {"verify_pack"},
    "board": {"board"},
    "results list": {"list_results"},
    "results show": {"find_run", "load_result"},
    "results diff": {"find_run", "diff_results"},
    "results rm": {"remove_results"},
    "results track": {"track_results"},
    "evaluate": {"evaluate"},
    "predict": {"predict"},
    "recommend": {"recommend", "replay"},
    "export": {"export"},
    "memory": {"forecast_memory"},
    "data info": {"data_info"},
    "data prepare": {"prepare_data"},
    "data verify": {"verify_data"},
    "data audit": {"audit_data"},
    "cache info": {"cache_info"},
    "cache verify": {"verify_cache"},
    "cache prune": {"prune_cache"},
    "doctor": {"doctor"},
    "completion": set(),
}


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")
        else:
            yield path + name, command


def called(command: click.Command) -> set[str]:
    """The names behind ``pb.`` in a command's own function."""
    assert command.callback is not None
    tree = ast.parse(textwrap.dedent(inspect.getsource(command.callback)))
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return {node.attr for node in attributes if isinstance(node.value, ast.Name) and node.value.id == "pb"}


@pytest.mark.parametrize(("name", "command"), commands(app), ids=lambda value: value if isinstance(value, str) else "")
def test_every_command_calls_its_function(name: str, command: click.Command) -> None:
    if name == "list":  # what it prints is the catalogue's own form, which the lists of the API have beside the names
        assert {f"list_{kind}" for kind in ("methods", "datasets", "metrics", "sweeps", "reports")} <= set(pb.__all__)
        return
    assert called(command) == FUNCTIONS[name]
    assert FUNCTIONS[name] <= set(pb.__all__)


def test_functions_are_short_and_take_few_arguments() -> None:
    for name in set().union(*FUNCTIONS.values()):
        function = getattr(pb, name)
        assert len(inspect.signature(function).parameters) <= 8, name
        assert len(inspect.getsource(function).splitlines()) <= 50, name
