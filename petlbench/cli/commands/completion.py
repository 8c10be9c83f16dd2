"""``petlbench completion``: names of methods, datasets and options at the press of a key."""

from __future__ import annotations

import click

from petlbench.cli.output import say


@click.command("completion", epilog="Example: petlbench completion bash >> ~/.bashrc")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print what makes a shell complete petlbench's commands, options and names."""
    from click.shell_completion import BashComplete, FishComplete, ZshComplete

    kinds = {"bash": BashComplete, "fish": FishComplete, "zsh": ZshComplete}
    say(kinds[shell](ctx.find_root().command, {}, "petlbench", "_PETLBENCH_COMPLETE").source())
