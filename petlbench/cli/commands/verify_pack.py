"""``petlbench verify-pack``: a bundle computed again from its predictions."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from petlbench.cli.options import PLACE, catalog_option, json_option
from petlbench.cli.output import print_json, say

_MOST_SHOWN = 30


@click.command("verify-pack", epilog="Example: petlbench verify-pack bundle.zip")
@click.argument("bundle", type=PLACE)
@catalog_option
@json_option
def command(bundle: Path, json: bool, **options: Any) -> int:
    """Compute every score, interval and cell of BUNDLE again from its predictions, and say what differs.

    Files are compared with the bundle's own checksums, too. The exit status is 1 where anything differs.
    """
    import petlbench as pb

    done = pb.verify_pack(bundle, progress=True, **options)
    if json:
        print_json({**asdict(done), "file": str(bundle), "is_whole": done.is_whole})
        return 0 if done.is_whole else 1
    counts = ", ".join(f"{count} {name}" for name, count in done.counts.items())
    if done.is_whole:
        say(f"{bundle}: nothing differs ({counts})")
        return 0
    number = len(done.differences)
    say(f"{bundle}: {number} difference{'s' if number > 1 else ''} ({counts})")
    for each in done.differences[:_MOST_SHOWN]:
        say(f"  {each.place}\n    in the bundle {each.stored or 'nothing'}; now {each.recomputed or 'nothing'}")
    if number > _MOST_SHOWN:
        say(f"  and {number - _MOST_SHOWN} more: --json has all")
    return 1
