"""What a bundle says to its reader: what it is, how it is checked, and the commands that make it again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig
from petlbench.core.environment import default_cache_dir, default_data_root
from petlbench.report.bundle.opened import SUMS, TABLES, Description
from petlbench.results.stored import Stored
from petlbench.run.command import command_of
from petlbench.run.options import RunContext, RunOptions

_REPEATS = ("seed", "split", "split_seed", "draw")


def commands_of(runs: Sequence[Stored], catalog: Catalog) -> list[str]:
    """The command of every run: the shortest of its setting, and behind it what repeats differ in."""
    context = RunContext(RunOptions(Path("results"), default_data_root(), default_cache_dir(), catalog.folders))
    by_setting: dict[str, str] = {}
    lines = []
    for run in runs:
        setting = repr(run.setting)
        if setting not in by_setting:
            by_setting[setting] = command_of(RunConfig.model_validate(run.config), context)
        lines.append(shlex.join([*_without_repeats(by_setting[setting]), *_repeat(run)]))
    return lines


def _without_repeats(command: str) -> list[str]:
    words, options = shlex.split(command), {f"--{name.replace('_', '-')}" for name in _REPEATS}
    places = {place + step for place, word in enumerate(words) if word in options for step in (0, 1)}
    return [word for place, word in enumerate(words) if place not in places]


def _repeat(run: Stored) -> list[str]:
    words = ["--split", str(run.config["split"]), "--seed", str(run.seed)]
    words += ["--split-seed", str(run.config["split_seed"])] if run.config.get("split_seed") else []
    return words + (["--draw", str(run.draw)] if run.draw else [])


def readme_of(description: Description, file: str, runs: Sequence[Stored]) -> str:
    """The page on top of a bundle, in Markdown."""
    finished = sum(run.finished for run in runs)
    methods, datasets = (list(dict.fromkeys(getattr(run, name) for run in runs)) for name in ("method", "dataset"))
    tables = [f"`{TABLES}/{name}.md`" for name, reason in description.reports.items() if not reason]
    without = [f"`{name}`: {reason}" for name, reason in description.reports.items() if reason]
    lines = [
        f"# {description.name}",
        "",
        f"{len(runs)} runs, {finished} of them finished: {', '.join(methods)} on {', '.join(datasets)}. "
        f"Packed by petlbench {description.petlbench}.",
        "",
        "## To check it",
        "",
        "```sh",
        f"sha256sum --check --quiet {SUMS}       # in the unpacked folder",
        "pip install petlbench",
        f"petlbench verify-pack {file}        # every score, interval and cell again, from the predictions",
        f"petlbench report table1 --results {file}",
        "```",
        "",
        "## What is in it",
        "",
        "| where | what |",
        "| --- | --- |",
        "| `results/RUN/result.json` | settings, scores with intervals, memory, time, environment, digests of data |",
        "| `results/RUN/predictions.parquet` | image, group, split, label and logits of validation and test images |",
        "| `manifests/` | which image is on which side, with the SHA-256 of its bytes; no paths |",
        "| `results/studies/` | what was planned |",
        "| `results/test_reads.jsonl` | when which run read a test split |",
        f"| `{TABLES}/` | tables: as numbers (JSON) and to be read (Markdown) |",
        "| `environment.json`, `requirements.txt` | machines, versions; the packages of the last run |",
        "| `commands.sh` | the command of every run |",
        f"| `{SUMS}` | the SHA-256 of every file |",
        "",
        f"Tables: {', '.join(tables) or 'none'}. Not in it: {'; '.join(description.left_out)}.",
        *(f"No table of {reason}" for reason in without),
        "",
        "Names of images and groups are those of the datasets, whose licences hold for them.",
    ]
    return "\n".join(lines) + "\n"
