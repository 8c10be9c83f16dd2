"""A report as a whole, and the formats of the catalogue that it is written in."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from petlbench.core.catalog import Catalog
from petlbench.core.entry import Card, Kind
from petlbench.core.errors import InputError, unknown_name
from petlbench.core.files import check_writable, write_atomically
from petlbench.core.text import printable
from petlbench.report.document import Figure, Table
from petlbench.report.look import Look
from petlbench.report.share import WithoutPlaces, without_places

if TYPE_CHECKING:
    import pandas as pd

Content = str | bytes

_UNFIT = re.compile(r'[/\\:*?"<>|]+')
_LONGEST = 200  # bytes of a file's name, with room for its ending and for what a temporary file's name has in front


@dataclass(frozen=True)
class Document:
    """A report.

    Args:
        name: Its name in the catalogue.
        title: What stands above it.
        tables: Its tables; the first is the main one.
        figures: Its figures.
        notes: Sentences on the whole: what is missing and the command that would make it, what differs from print.
        runs: Every run that went into it as its ``result.json`` has it (config, metrics with confusion matrices,
            curve, memory, timing, environment, error), and ``folder``, where the results are files.
        source: Where the results came from, in words.
        settings: What all of it holds for: setting, study, options of the command.
        verdict: What it comes to, in a sentence; empty where nothing can be said in one.
        details: Makes further figures, which a page shows and no file has; they are made when a page is.
        look: Names, colours, and the size of figures.
        paragraphs: Running text, which stands in front of the tables.
    """

    name: str
    title: str
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    notes: Sequence[str] = ()
    runs: Sequence[Mapping[str, Any]] = ()
    source: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    paragraphs: Sequence[str] = ()
    verdict: str = ""
    details: Callable[[], Sequence[Figure]] = tuple
    look: Look = field(default_factory=Look.of)

    def plain(self) -> dict[str, Any]:
        """All of it as plain values, but for what is only about how it looks."""
        values = asdict(replace(self, runs=(), details=tuple, look=Look())) | {"runs": list(map(dict, self.runs))}
        return {name: value for name, value in values.items() if name not in {"details", "look"}}

    def sized(self, width: float, font: float) -> Document:
        """The report with figures and LaTeX tables of a width in millimetres, and type of a size in points."""
        return replace(self, look=replace(self.look, width=width, font=font))

    def to_dataframe(self) -> pd.DataFrame:
        """The main table with numbers as they are, unrounded: one row a row, columns as in the CSV."""
        import pandas as pd

        if not self.tables:
            return pd.DataFrame()
        headings, rows = self.tables[0].records()
        return pd.DataFrame(rows, columns=headings)

    def to_markdown(self) -> str:
        """All tables in Markdown."""
        return _format("md", Catalog()).text(self)

    def to_latex(self) -> str:
        r"""All tables in LaTeX, to be taken in with ``\input``; comments on top say what the preamble needs."""
        return _format("latex", Catalog()).text(self)

    def to_html(self) -> str:
        """A page that needs no other file, with tables to sort and plots to explore."""
        return _format("html", Catalog()).text(self)

    def save(self, path: str | Path) -> list[Path]:
        """Write the report to a file in the format of its ending, such as ``.md``, ``.tex``, ``.html`` or ``.png``.

        Args:
            path: The file. A format of several files names the others after it.

        Returns:
            The files.

        Raises:
            InputError: When no format has that ending, or it has nothing to show of this report.
        """
        formats = parse_formats(None, Path(path), Catalog())
        if not formats:
            raise InputError(f"{path}: the name has no ending that tells the format", hint="such as report.md")
        return write_report(self, formats, Path(path))


@dataclass(frozen=True)
class ReportFormat(Card):
    """A format that a report is written in.

    Args:
        suffix: What the names of its files end in, such as ``.md``.
        render: Makes the report's text or bytes. A format of several files gives each under what stands behind the
            report's name in the file's: ``""`` for the main one, ``comparison`` for ``NAME-comparison.csv``.
        is_text: Whether the main one can go to standard output.
        beside: Makes further files that the text names, by their whole names; None for none.
    """

    kind: ClassVar[Kind] = "format"

    suffix: str
    render: Callable[[Document], Content | Mapping[str, Content]]
    is_text: bool = True
    beside: Callable[[Document], Mapping[str, bytes]] | None = None

    @property
    def ending(self) -> str:
        """What stands behind the last point of its files' names, and the point."""
        return f".{self.suffix.rpartition('.')[2]}"

    def parts(self, document: Document) -> Mapping[str, Content]:
        """The contents of its files, by what stands behind the report's name."""
        shared = replace(without_places(replace(document, runs=())), runs=WithoutPlaces(document.runs))
        content = self.render(shared)
        return {"": content} if isinstance(content, str | bytes) else content

    def text(self, document: Document) -> str:
        """What goes to standard output; empty for a report that has nothing to show in this format."""
        content = self.parts(document).get("", "")
        return content if isinstance(content, str) else content.decode()


def one_line(text: str) -> str:
    """The text on one line, with what would steer a terminal or turn the direction of reading made visible."""
    return printable(" ".join(text.split()))


def parse_formats(text: str | None, output: Path | None, catalog: Catalog) -> list[ReportFormat]:
    """The formats that a text names with commas between them, each once, or else the one of the output file's ending.

    A format is named by its name, its title, or the ending of its files, such as ``tex``. Nothing stands for tables on
    the terminal.

    Raises:
        InputError: When a format is unknown, or no format has the file's ending.
    """
    entries = catalog.entries("format")
    # Shipped ones come last, and take the place of a user's with the same ending.
    by_ending = {
        str(entry.card.get("suffix", "")).removeprefix("."): entry.name
        for entry in sorted(entries.values(), key=lambda entry: entry.shipped)
    }
    if text is not None:
        by_title = {entry.title.lower(): entry.name for entry in entries.values()}
        by_key = by_ending | by_title | {name: name for name in entries}
        keys = [key for part in text.split(",") if (key := part.strip().lower())]
        for key in keys:
            if key not in by_key:
                raise unknown_name("format", key, entries, hint=f"known: {', '.join(entries)}")
        return [_format(name, catalog) for name in dict.fromkeys(by_key[key] for key in keys)]
    if output is None or not _is_file(output):
        return []
    ending = output.suffix.lower().removeprefix(".")
    if ending not in by_ending:
        raise InputError(
            f"--output {output}: no format of reports ends in '{output.suffix}'",
            hint=f"choose one with --format: {', '.join(entries)}",
            kind="bad_setting",
        )
    return [_format(by_ending[ending], catalog)]


def check_output(formats: Sequence[ReportFormat], output: Path | None) -> None:
    """Check before anything is computed that the formats can go to a file, a folder or, with None, standard output.

    Raises:
        InputError: When they cannot.
    """
    if output is None:
        if len(formats) > 1 or not all(each.is_text for each in formats):
            raise InputError(
                f"--format {','.join(each.name for each in formats)}: this goes to files, and there is no --output",
                hint="name a folder with --output, or a file with the format's ending",
                kind="usage",
            )
        return
    if _is_file(output) and len(formats) > 1:
        raise InputError(
            f"--output {output} is one file, but {len(formats)} formats are to go there",
            hint="name a folder",
            kind="usage",
        )
    check_writable(output.parent if _is_file(output) else output, what="folder of reports")


def write_report(document: Document, formats: Sequence[ReportFormat], output: Path) -> list[Path]:
    """Write a report to files: all of them, each as a whole, or none.

    One format goes to the file that is named; several, or a folder, to the report's name with each format's suffix,
    such as NAME.md. A format of several files names them NAME-PART, such as NAME-TABLE.csv and NAME-FIGURE.png.

    Returns:
        The files.

    Raises:
        InputError: When a format has nothing to show; nothing is written then.
    """
    contents: dict[Path, Content] = {}
    for each in formats:
        main = output.with_suffix(each.ending) if _is_file(output) else output / f"{document.name}{each.suffix}"
        # What lies beside two files of a report must not have one name.
        own = replace(document, look=replace(document.look, files=main.stem)) if _is_file(output) else document
        for part, content in each.parts(own).items():
            contents[_file(main, part, contents)] = content
        for name, content in each.beside(own).items() if each.beside is not None else ():
            contents[main.with_name(name)] = content
    folder = output.parent if _is_file(output) else output
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as files:
        for file, content in contents.items():
            temporary = files.enter_context(write_atomically(file))
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(contents)


def _file(main: Path, part: str, others: Container[Path]) -> Path:
    """The file of a part, whose name may hold a dataset's: letters of every script stay, separators do not."""
    if not part:
        return main
    name = _UNFIT.sub("-", printable(f"{main.stem}-{part}"))
    while len(name.encode()) > _LONGEST:
        name = name[:-1]
    numbers = chain([""], (f"-{number}" for number in count(2)))
    return next(file for number in numbers if (file := main.with_name(f"{name}{number}{main.suffix}")) not in others)


def _format(name: str, catalog: Catalog) -> ReportFormat:
    return catalog.load("format", name, ReportFormat)


def _is_file(output: Path) -> bool:
    return bool(output.suffix) and not output.is_dir()
