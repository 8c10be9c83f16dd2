"""Score against what it costs, one point a row."""

from __future__ import annotations

from petlbench.report.formats import Document
from petlbench.report.inputs import ReportInputs
from petlbench.report.kinds.cost import cost_figures, printed_cost_figure
from petlbench.report.kinds.methods import main_table
from petlbench.report.spec import ReportKind


def build(inputs: ReportInputs) -> Document:
    """Make a table, and the figure of each row's average against a cost; the size of a point is another cost."""
    main = main_table(inputs)
    return inputs.document([main], cost_figures(inputs))


TRADEOFF = ReportKind(
    name="tradeoff",
    title="Score against cost",
    build=build,
    by_group=True,
    printed_figure=printed_cost_figure,
    shows_cost=True,
)
