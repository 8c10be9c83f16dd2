"""The gallery of the site: every report of one real study, with its picture and its command, and the study's bundle.

``make gallery`` runs nine methods on a folder of X-rays (five folds, three seeds, petlbench_micro), packs the study,
and makes ``docs/gallery/`` of the bundle: a page, a picture a report, and the bundle where it is small. What is
finished is not run again.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import petlbench as pb
from petlbench.core.errors import InputError
from petlbench.core.units import readable_size
from petlbench.report.formats import Document
from petlbench.report.render.figure_files import draw

ROOT = Path(__file__).resolve().parents[1]
PAGE, STUDY, BUNDLE = "index.md", "gallery", "gallery.zip"
METHODS = "full,linear,vpt,attention,adapter,bitfit,lora,fpt,fpt_plus"
LARGEST = 5 << 20
"""The most bytes of a bundle that the page brings."""

_TABLE_LINES = 14
_HEAD = """# Gallery

Every report that one study can be shown as, with the command that makes it. The study: {methods} on {dataset},
{splits} and {seeds}, `petlbench_micro`. {bundle}

Pictures and tables are made by `make gallery` from the bundle, and by nothing else.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study as far as it is not there, pack and verify it, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--data", required=True, help="a folder of class folders, or a dataset's name")
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--image-size", default="64")
    parser.add_argument("--epochs", default="5")
    parser.add_argument("--workers", default="0")
    parser.add_argument("--threads", default="1", help="of each run")
    parser.add_argument("--output", type=Path, default=ROOT / "results/gallery")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/gallery")
    given = parser.parse_args(arguments)
    _run(given)
    bundle = given.output / BUNDLE
    pb.pack(STUDY, bundle, results=given.output, reports=["table1"])
    verified = pb.verify_pack(bundle)
    if not verified.is_whole:
        print(*verified.differences, sep="\n", file=sys.stderr)
        return 1
    write_page(bundle, given.page)
    return 0


def _run(given: argparse.Namespace) -> None:
    """Carry the study out, a fold after the other, by the command that a user would give."""
    words = ["bench", "--method", given.methods, "--dataset", given.data, "--seed", given.seeds]
    words += ["--backbone", "petlbench_micro", "--image-size", given.image_size, "--epochs", given.epochs]
    words += ["--workers", given.workers, "--threads", given.threads, "--tracking-uri", "none"]
    words += ["--output", str(given.output)]
    for fold in range(given.folds):
        # Studies whose names begin so are one study, too.
        own = ["--split", f"kfold:{given.folds}/{fold}", "--study", f"{STUDY}.{fold}"]
        subprocess.run([sys.executable, "-m", "petlbench", *words, *own], check=True)


def write_page(bundle: Path, folder: Path) -> list[str]:
    """Make the page of a bundle in a folder, whose files it replaces.

    Returns:
        The names of the reports that are on it.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    results = pb.load_results(bundle, STUDY)
    size = bundle.stat().st_size
    words = f"The bundle, {readable_size(size)}: `petlbench verify-pack {BUNDLE}` computes every figure of it again."
    if size <= LARGEST:
        shutil.copyfile(bundle, folder / BUNDLE)
        words = words.replace("The bundle", f"[The bundle]({BUNDLE})")
    methods = dict.fromkeys(run.method for run in results.runs)
    splits, seeds = ({getattr(run, name) for run in results.runs} for name in ("split", "seed"))
    title = str(results.runs[0].document["data"].get("title") or results.runs[0].dataset)
    counts = {"splits": f"{len(splits)} folds", "seeds": f"{len(seeds)} seeds", "bundle": words}
    parts = [_HEAD.format(methods=f"{len(methods)} methods", dataset=title, **counts)]
    names = []
    for name in pb.list_reports():
        try:
            document = pb.report(name, bundle, study=STUDY)
        except InputError as error:
            print(f"{name}: not in the gallery: {error.message}", file=sys.stderr)
            continue
        if section := list(_section(document, name, folder)):
            names.append(name)
            parts += section
    (folder / PAGE).write_text("\n".join(parts), encoding="utf-8")
    return names


def _section(document: Document, name: str, folder: Path) -> Iterator[str]:
    """What the page has of a report: its command, its first figure, and the top of its first table, or its text."""
    if not (_has_content(document) or document.figures or document.paragraphs):
        return
    yield f"## {document.title}\n"
    yield f"```sh\n{shlex.join(['petlbench', 'report', name, '--results', BUNDLE])}\n```\n"
    if document.figures:
        figure = document.figures[0]
        draw(figure, folder / f"{name}.png")
        yield f"![{figure.title}]({name}.png)\n"
    yield from (f"> {paragraph}\n" for paragraph in document.paragraphs)
    if _has_content(document):
        lines = document.to_markdown().splitlines()
        first = next(number for number, line in enumerate(lines) if line.startswith("|"))
        table = [line for line in lines[first : first + _TABLE_LINES] if line.startswith("|")]
        yield "\n".join(table) + "\n"


def _has_content(document: Document) -> bool:
    """Whether the first table says anything: a number, where it has columns of numbers."""
    if not document.tables:
        return False
    table = document.tables[0]
    numbers = [column for column in table.columns if column.numeric]
    return bool(table.rows) and (
        not numbers or any(table.cell(row, column).value is not None for row in table.rows for column in numbers)
    )


if __name__ == "__main__":
    sys.exit(main())
