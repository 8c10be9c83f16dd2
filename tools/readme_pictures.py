"""The pictures of the README, of the demo's results.

    python tools/readme_pictures.py --results results     after make demo (make pictures)

Writes docs/pictures/tradeoff.svg and, where Chromium is installed, docs/pictures/page.png, and prints the table.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

import petlbench as pb
from petlbench.report.render.figure_files import draw
from petlbench.report.render.markdown import render_table

PICTURES = Path(__file__).resolve().parents[1] / "docs/pictures"
_COLOURS = 256
_SIZE = (1180, 1250)


def main() -> None:
    """Draw the pictures anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", default="results", help="folder of the demo's results")
    document = pb.report("demo", parser.parse_args().results, study="demo")
    PICTURES.mkdir(exist_ok=True)
    draw(document.figures[0], PICTURES / "tradeoff.svg", document.look)
    print(render_table(document.tables[0]))
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        print("no Chromium: the picture of the page stays as it is")
        return
    with tempfile.TemporaryDirectory() as folder:
        page = document.save(Path(folder) / "page.html")[0]
        photograph(page, PICTURES / "page.png", chromium, Path(folder))


def photograph(page: Path, picture: Path, chromium: str, folder: Path) -> None:
    """Take a picture of the top of a page, in few colours, which makes it small."""
    from PIL import Image

    shot = folder / "page.png"
    width, height = _SIZE
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=10000"]
    options += [f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}", f"--screenshot={shot}"]
    subprocess.run([chromium, *options, page.as_uri()], check=True, capture_output=True)
    with Image.open(shot) as image:
        few = image.convert("RGB").quantize(_COLOURS, method=Image.Quantize.MAXCOVERAGE)
        few.save(picture, optimize=True)


if __name__ == "__main__":
    main()
