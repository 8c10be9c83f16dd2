"""The paragraph of a paper that says what was done, with its numbers."""

from __future__ import annotations

from dataclasses import replace

from petlbench.report.formats import Document
from petlbench.report.inputs import ReportInputs
from petlbench.report.spec import ReportKind
from petlbench.report.statements import Statements


def build(inputs: ReportInputs) -> Document:
    """Put the sentences on the study together."""
    say = Statements(inputs)
    methods = (say.methods, say.learnable, say.data, say.preprocessing, say.splits, say.initialization, say.training)
    measures = (say.selection, say.score, say.software)
    results = (say.results, say.comparison, say.memory)
    paragraphs = [
        " ".join(filter(None, (sentence() for sentence in part))) for part in ((*methods, *measures), results)
    ]
    return replace(inputs.document(), paragraphs=[each for each in paragraphs if each])


METHODS_PARAGRAPH = ReportKind(
    name="methods_paragraph", title="What was done, as a paragraph", build=build, by_group=True
)
