"""How well `petlbench recommend` predicts what a run takes, and what measuring it costs (wall time: an idle machine).

    python tools/recommend_hours.py FOLDER [--methods a,b,…] [--epochs 20] [--image-size 64] [--hours 0.25]

It races with one trial a method, so that each trial is of the very candidate that was measured, and compares the
seconds of the trials with those predicted before. All else that is given goes to `petlbench recommend`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

METHODS = "linear,bitfit,lora,adapter,vpt,fpt"


def measure(folder: Path, options: argparse.Namespace, more: list[str]) -> dict[str, Any]:
    """The answer of the command."""
    values = {
        "dataset": options.dataset,
        "backbone": options.backbone,
        "methods": options.methods,
        "epochs": options.epochs,
        "image-size": options.image_size,
        "hours": options.hours,
        "trials": len(options.methods.split(",")),
        "output": folder,
        "cache-dir": folder / "cache",
        "tracking-uri": "none",
    }
    words = [word for name, value in values.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "petlbench", "recommend", *words, "--json", *more]
    return dict(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))


def main() -> None:
    """Print a row a method, and whether both bounds hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where results and features go; a new one measures all")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--backbone", default="petlbench_micro")
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--hours", type=float, default=0.25)
    options, more = parser.parse_known_args()
    answer = measure(options.folder, options, more)
    costs, errors = answer["hours"]["costs"], []
    print("method      predicted s   real s   real/predicted   in the interval   measuring s")
    for row in answer["methods"]:
        cost = costs[row["arm"]]
        ratio = row["seconds"] / cost["predicted"]
        held = "yes" if cost["low"] <= row["seconds"] <= cost["high"] else "no"
        errors += [abs(ratio - 1)] if cost["measuring"] else []
        note = "" if cost["measuring"] else "   not measured: the median of the others"
        print(
            f"{row['arm']:10}  {cost['predicted']:11.1f}  {row['seconds']:7.1f}  {ratio:15.3f}  {held:>16}  "
            f"{cost['measuring']:12.2f}{note}"
        )
    share = sum(cost["measuring"] for cost in costs.values()) / (3600 * options.hours)
    print(f"largest error {100 * max(errors):.1f} % of {len(errors)} measured methods (bound 20 %)")
    print(f"measuring {100 * share:.2f} % of the hours (bound 3 %)")
    spent = answer["hours"]["spent"]
    print(f"hours spent {spent:.4f} of {options.hours:g}")


if __name__ == "__main__":
    main()
