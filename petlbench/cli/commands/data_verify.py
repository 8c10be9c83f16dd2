"""``petlbench data verify``: is every image still the one that was prepared?"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from petlbench.cli.options import catalog_option, data_root_option, json_option
from petlbench.cli.output import print_json
from petlbench.core.units import readable_size

if TYPE_CHECKING:
    from petlbench.data.official.verify import Verified

__all__ = ["verify"]

_MOST_NAMED = 20


@click.command("verify", epilog="Example: petlbench data verify isic2018")
@click.argument("dataset")
@data_root_option
@catalog_option
@json_option
def verify(dataset: str, data_root: Path, catalog: tuple[Path, ...], json: bool) -> int:
    """Check every image of a prepared dataset: present, of the same size and checksum, and readable.

    Exits with status 1 where anything is not as it was when the dataset was prepared.
    """
    import petlbench as pb

    outcome = pb.verify_data(dataset, data_root=data_root, catalog=catalog, progress=True)
    if json:
        document = {"name": dataset, outcome.what: outcome.images, "bytes": outcome.bytes, "whole": not outcome.faults}
        print_json({**document, "faults": [asdict(fault) for fault in outcome.faults]})
    else:
        _print(dataset, outcome)
    return 1 if outcome.faults else 0


def _print(name: str, outcome: Verified) -> None:
    size = readable_size(outcome.bytes)
    if not outcome.faults:
        print(f"{name}: all {outcome.images} {outcome.what} ({size}) are as they should be")
        return
    kinds = ", ".join(f"{kind} {count}" for kind, count in Counter(fault.kind for fault in outcome.faults).items())
    print(f"{name}: of {outcome.images} {outcome.what} ({size}), not everything is as it should be: {kinds}")
    for fault in outcome.faults[:_MOST_NAMED]:
        print(f"  {fault.message}")
    if len(outcome.faults) > _MOST_NAMED:
        print(f"  and {len(outcome.faults) - _MOST_NAMED} more, which --json names")
    print(f"  hint: get the official files again, then petlbench data prepare {name} --again")
