"""List files: a line names an image and, after the last blank, its label; names may hold blanks themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from petlbench.core.user_files import read_text


def read_list(file: Path, columns: int = 2, separator: str = " ") -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, cells) of every line with text, divided from its end: the first cell keeps its blanks.

    Args:
        file: The list, in UTF-8.
        columns: The most cells of a line; 0 for any number.
        separator: Characters that divide cells, a blank among them, which stands for any number of blanks and tabs.

    Raises:
        InputError: When the file cannot be read or is not UTF-8.
    """
    others = re.escape(separator.replace(" ", ""))
    gap = re.compile(rf"[ \t]*[{others}][ \t]*|[ \t]+" if others else r"[ \t]+")
    for number, line in enumerate(read_text(file, what="list").split("\n"), start=1):
        if text := line.strip():
            gaps = [match.span() for match in gap.finditer(text)]
            gaps = gaps[max(0, len(gaps) - columns + 1) :] if columns else gaps
            starts, ends = [0, *(end for _, end in gaps)], [*(start for start, _ in gaps), len(text)]
            yield number, [text[start:end] for start, end in zip(starts, ends, strict=True)]
