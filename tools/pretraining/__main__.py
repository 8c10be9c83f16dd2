"""``python -m tools.pretraining``: makes the weights of ``petlbench_micro`` anew."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tools.pretraining.distill import Recipe


@click.command(epilog="Example: python -m tools.pretraining --folder pretraining --output petlbench_micro.safetensors")
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="For images and checkpoints: 6 GB.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The safetensors file to write.")
@click.option("--shards", type=click.IntRange(1), default=64, show_default=True, help="Thousands (1,024) of images.")
@click.option("--epochs", type=click.IntRange(1), default=Recipe.epochs, show_default=True)
@click.option("--batch-size", type=click.IntRange(1, 1024), default=Recipe.batch_size, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=Recipe.seed, show_default=True)
def command(folder: Path, output: Path, shards: int, epochs: int, batch_size: int, seed: int) -> None:
    """Draw images, let the teacher look at them, and distil what it sees into the backbone.

    Stopped, it goes on where it was when the same command is given again.
    """
    from petlbench.core.environment import usable_cores
    from petlbench.core.files import check_writable
    from petlbench.core.process_pool import open_workers
    from petlbench.core.progress_bars import ShownProgress
    from tools.pretraining.distill import distill
    from tools.pretraining.pool import fill_pool

    check_writable(folder, what="working folder", option="--folder")  # now, not after two hours
    check_writable(output.parent)
    for place in (folder, output.parent):
        place.mkdir(parents=True, exist_ok=True)
    with open_workers(usable_cores()) as workers, ShownProgress() as progress:
        pool = fill_pool(folder / "pool", shards, seed, workers, progress)
    with ShownProgress() as progress:
        distill(pool, Recipe(epochs=epochs, batch_size=batch_size, seed=seed), folder, output, progress)


if __name__ == "__main__":
    from petlbench.cli.app import run_command
    from petlbench.core.interrupt import install_handlers

    install_handlers()
    sys.exit(run_command(sys.argv[1:], command, "python -m tools.pretraining"))
