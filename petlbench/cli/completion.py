"""What a shell completes an option with: names of the catalogues."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from petlbench.core.entry import Kind


def names_of(kind: Kind) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Completion of names of a kind, the last of several with commas between them."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        from petlbench.core.catalog import Catalog

        before, comma, begun = incomplete.rpartition(",")
        names = [name for name in Catalog().entries(kind) if name.startswith(begun)]
        return [CompletionItem(f"{before}{comma}{name}") for name in names]

    return complete
