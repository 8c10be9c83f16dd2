"""What a report can be and be written as: kinds and formats, each a row of the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from petlbench.core.entry import Card, Kind

if TYPE_CHECKING:
    from petlbench.report.document import Document, Figure
    from petlbench.report.inputs import ReportInputs
    from petlbench.report.kinds.papers import PaperTable

__all__ = ["Content", "ReportFormat", "ReportKind"]

Content = str | bytes


@dataclass(frozen=True)
class ReportKind(Card):
    """A kind of report: what ``kind`` in a report's file names.

    Args:
        build: Makes the report of its inputs.
        needs: Fields of the report's file that must not be empty.
        printed_figure: Draws a paper's printed table, with the names of tables by name; None where nothing is drawn.
    """

    kind: ClassVar[Kind] = "report_kind"

    build: Callable[[ReportInputs], Document]
    needs: tuple[str, ...] = ()
    printed_figure: Callable[[PaperTable, Mapping[str, str]], Figure] | None = None


@dataclass(frozen=True)
class ReportFormat(Card):
    """A format that a report is written in.

    Args:
        suffix: What the names of its files end in, such as ``.md``.
        render: Makes the report's text or bytes. A format of several files gives each under what stands behind the
            report's name in the file's: ``""`` for the main one, ``comparison`` for ``NAME-comparison.csv``.
        is_text: Whether the main one can go to standard output.
    """

    kind: ClassVar[Kind] = "format"

    suffix: str
    render: Callable[[Document], Content | Mapping[str, Content]]
    is_text: bool = True

    @property
    def ending(self) -> str:
        """What stands behind the last point of its files' names, and the point."""
        return f".{self.suffix.rpartition('.')[2]}"

    def parts(self, document: Document) -> Mapping[str, Content]:
        """The contents of its files, by what stands behind the report's name."""
        content = self.render(document)
        return {"": content} if isinstance(content, str | bytes) else content

    def text(self, document: Document) -> str:
        """What goes to standard output; empty for a report that has nothing to show in this format."""
        content = self.parts(document).get("", "")
        return content if isinstance(content, str) else content.decode()
