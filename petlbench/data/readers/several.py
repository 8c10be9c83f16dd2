"""Several labels an image in a table: in one column a label, or in one cell with a sign between; and -1 for doubt."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import model_validator

from petlbench.data.readers.settings import LabelSettings, silent
from petlbench.data.tasks.multilabel import MULTILABEL, SEPARATOR, UNKNOWN

_CELL = re.compile(r"(-1|0|1)?(\.0*)?")

Doubt = Literal["ignore", "zero", "one"]


class SeveralSettings(LabelSettings):
    """How a table writes several labels of an image; each of the two ways means the task type ``multilabel``."""

    label_columns: str = silent(
        "",
        description="Columns of labels, with commas between: several labels an image. A cell holds 1, 0, "
        "-1 (uncertain) or nothing.",
    )
    label_separator: str = silent("", description="What stands between the labels of a cell, such as |.")
    no_label: str = silent("", description="What a cell says that names no label, such as No Finding.")
    uncertain: Doubt = silent("ignore", description="What -1 in a label's column is: not known, 0, or 1.")
    empty: Doubt = silent("ignore", description="What nothing in a label's column is: not known, 0, or 1.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.label_columns and self.label_separator:
            raise ValueError("label_columns and label_separator are two ways of writing labels; give one of them")
        if self.task not in ("", MULTILABEL.name) and self.several:
            raise ValueError(f"label_columns and label_separator are of the task {MULTILABEL.name}, not {self.task}")
        return self

    @property
    def several(self) -> bool:
        """Whether they say that an image has several labels."""
        return bool(self.label_columns or self.label_separator)

    @property
    def task_name(self) -> str:
        """The task type that these settings mean."""
        return MULTILABEL.name if self.several else super().task_name

    @property
    def columns(self) -> list[str]:
        """The columns of labels; what holds a comma stands in quotes."""
        rows = csv.reader([self.label_columns], skipinitialspace=True)
        return [name.strip() for row in rows for name in row if name.strip()]

    def of_columns(self, cells: Mapping[str, str]) -> str:
        """Return the label that the columns' cells, by name, stand for, as the task type writes it.

        Raises:
            ValueError: When a cell holds something else than 1, 0, -1 or nothing.
        """
        names = []
        for name, cell in cells.items():
            match = _CELL.fullmatch(cell)
            if match is None or (match[2] and match[1] is None):
                raise ValueError(f"the column {name} holds '{cell}', which is none of 1, 0, -1 and nothing")
            how = {"0": "zero", "1": "one", "-1": self.uncertain, None: self.empty}[match[1]]
            names += [(UNKNOWN if how == "ignore" else "") + name] if how != "zero" else []
        return SEPARATOR.join(names)

    def of_cell(self, text: str) -> str:
        """Return the label that a cell stands for, as the task type writes it.

        Raises:
            ValueError: When a label cannot be called so.
        """
        parts = [part.strip() for part in text.split(self.label_separator)]
        names = dict.fromkeys(part for part in parts if part and part != self.no_label)
        wrong = next((name for name in names if SEPARATOR in name or name.startswith(UNKNOWN)), None)
        if wrong is not None:
            raise ValueError(f"'{wrong}' is no name: '{SEPARATOR}' and a '{UNKNOWN}' in front mean something in labels")
        return SEPARATOR.join(names)
