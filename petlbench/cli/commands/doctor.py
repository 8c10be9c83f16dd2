"""``petlbench doctor``: what petlbench finds on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from petlbench.cli.options import cache_dir_option, data_root_option, json_option, output_option
from petlbench.cli.output import print_facts, print_json


@click.command("doctor", epilog="Example: petlbench doctor --json")
@data_root_option
@cache_dir_option
@output_option
@json_option
def command(data_root: Path, cache_dir: Path, output: Path, json: bool) -> None:
    """Show versions, devices, free memory, and where weights and data would be looked for."""
    import petlbench as pb

    report = pb.doctor(data_root=data_root, cache_dir=cache_dir, output=output)
    if json:
        print_json(report)
        return
    for title, facts in report.items():
        texts = {name: f"{value:,}" if isinstance(value, int) else str(value) for name, value in facts.items()}
        print_facts(title, {name: "not found" if facts[name] is None else text for name, text in texts.items()})
