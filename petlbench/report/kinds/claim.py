"""Checklists for papers: what the results answer of CLAIM 2024 and TRIPOD+AI, and what is left to the author.

CLAIM: A. S. Tejani et al., Radiology: Artificial Intelligence 6 (2024) e240300. TRIPOD+AI: G. S. Collins et al., BMJ
385 (2024) e078378. Topics are named in our words; what an item asks for in full stands there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from petlbench.report.document import Cell, Column, Row, Table
from petlbench.report.formats import Document
from petlbench.report.inputs import ReportInputs
from petlbench.report.spec import ReportKind
from petlbench.report.statements import Statements

_AUTHOR = "for the author"
_NOTE = (
    "'In part' means that the results say something on the item, and never all that it asks for: read every item in "
    "the checklist itself before the form is filled in."
)
_COLUMNS = (
    Column("topic", "topic", numeric=False),
    Column("status", "answered", numeric=False),
    Column("answer", "what the results say", numeric=False),
)

_Sentence = Callable[[Statements], str]


class _Item(NamedTuple):
    """An item: its number, what it is about, and the sentences that answer it; none for the author's own."""

    number: str
    topic: str
    sentences: tuple[_Sentence, ...] = ()


_S = Statements
_CLAIM = (
    _Item("1", "title names the technology"),
    _Item("2", "abstract"),
    _Item("3", "background"),
    _Item("4", "aims and hypotheses"),
    _Item("5", "prospective or retrospective"),
    _Item("6", "goal of the study"),
    _Item("7", "sources of data", (_S.data,)),
    _Item("8", "inclusion and exclusion", (_S.exclusions,)),
    _Item("9", "preprocessing", (_S.preprocessing,)),
    _Item("10", "selection of subsets of the data"),
    _Item("11", "de-identification"),
    _Item("12", "missing data", (_S.exclusions,)),
    _Item("13", "acquisition of images"),
    _Item("14", "definition of the reference standard"),
    _Item("15", "why that reference standard"),
    _Item("16", "who annotated"),
    _Item("17", "annotation of the test set"),
    _Item("18", "variability of annotators"),
    _Item("19", "assignment to partitions", (_S.splits,)),
    _Item("20", "level at which partitions are disjoint", (_S.splits,)),
    _Item("21", "sample size", (_S.data,)),
    _Item("22", "the model", (_S.methods, _S.learnable)),
    _Item("23", "software", (_S.software,)),
    _Item("24", "initialisation of parameters", (_S.initialization,)),
    _Item("25", "training", (_S.training,)),
    _Item("26", "selection of the final model", (_S.selection,)),
    _Item("27", "ensembles"),
    _Item("28", "measures of performance", (_S.score,)),
    _Item("29", "significance and uncertainty", (_S.score,)),
    _Item("30", "robustness and sensitivity"),
    _Item("31", "explainability"),
    _Item("32", "evaluation on internal data", (_S.selection,)),
    _Item("33", "testing on external data", (_S.external,)),
    _Item("34", "registration of a trial"),
    _Item("35", "numbers of cases", (_S.data, _S.exclusions)),
    _Item("36", "characteristics of cases by partition", (_S.classes,)),
    _Item("37", "performance with uncertainty", (_S.results, _S.comparison)),
    _Item("38", "diagnostic performance and its precision"),
    _Item("39", "analysis of failures"),
    _Item("40", "limitations"),
    _Item("41", "implications for practice"),
    _Item("42", "the full protocol"),
    _Item("43", "availability of software, model and data"),
    _Item("44", "funding"),
)
_TRIPOD = (
    _Item("1", "title"),
    _Item("2", "abstract"),
    _Item("3a-c", "background and inequalities"),
    _Item("4", "objectives"),
    _Item("5a", "sources of data", (_S.data,)),
    _Item("5b", "dates of the data"),
    _Item("6a-c", "participants"),
    _Item("7", "preparation of data", (_S.preprocessing, _S.exclusions)),
    _Item("8a-c", "outcome"),
    _Item("9a-c", "predictors"),
    _Item("10", "sample size", (_S.data,)),
    _Item("11", "missing data", (_S.exclusions,)),
    _Item("12a", "use of the data for development and evaluation", (_S.splits,)),
    _Item("12b", "handling of predictors", (_S.preprocessing,)),
    _Item("12c", "type of model, building, tuning", (_S.methods, _S.training, _S.selection)),
    _Item("12d", "heterogeneity between clusters"),
    _Item("12e", "measures of performance", (_S.score,)),
    _Item("12f", "updating of the model", (_S.calibration,)),
    _Item("12g", "how predictions were calculated"),
    _Item("13", "class imbalance", (_S.classes,)),
    _Item("14", "fairness"),
    _Item("15", "output of the model", (_S.calibration,)),
    _Item("16", "training against evaluation data", (_S.splits, _S.external)),
    _Item("17", "ethical approval"),
    _Item("18a-f", "funding, interests, protocol, registration, data, code"),
    _Item("19", "involvement of patients and the public"),
    _Item("20a-c", "participants: flow, characteristics, comparison", (_S.classes,)),
    _Item("21", "numbers in each analysis", (_S.data,)),
    _Item("22", "specification of the model", (_S.initialization, _S.software)),
    _Item("23a", "performance with intervals", (_S.results, _S.comparison)),
    _Item("23b", "heterogeneity of performance"),
    _Item("24", "results of updating"),
    _Item("25", "interpretation"),
    _Item("26", "limitations"),
    _Item("27a-c", "usability"),
)
_LISTS: Mapping[str, tuple[str, Sequence[_Item]]] = {
    "claim": ("CLAIM 2024", _CLAIM),
    "tripod": ("TRIPOD+AI", _TRIPOD),
}


def build(inputs: ReportInputs) -> Document:
    """A table for each checklist."""
    statements = Statements(inputs)
    tables = [_table(key, title, items, statements) for key, (title, items) in _LISTS.items()]
    return inputs.document(tables, notes=[_NOTE])


CLAIM = ReportKind(name="claim", title="Checklists for papers", build=build, by_group=True)


def _table(key: str, title: str, items: Sequence[_Item], statements: Statements) -> Table:
    rows = []
    for item in items:
        answer = " ".join(filter(None, (sentence(statements) for sentence in item.sentences)))
        cells = {
            "topic": Cell(text=item.topic),
            "status": Cell(text="in part" if answer else _AUTHOR),
            "answer": Cell(text=answer),
        }
        rows.append(Row(item.number, item.number, cells))
    answered = sum(row.cells["status"].text != _AUTHOR for row in rows)
    caption = f"{answered} of {len(rows)} rows are answered in part by the results; the others are the author's."
    return Table(key, title, _COLUMNS, rows, caption, row_title="item")
