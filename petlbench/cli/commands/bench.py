"""``petlbench bench``: every combination of methods, datasets and seeds."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from petlbench.cli.commands.bench_options import BenchOptions
from petlbench.cli.options import executor_options, json_option, run_options
from petlbench.cli.output import print_json

if TYPE_CHECKING:
    from petlbench.report.spec import Preset
    from petlbench.run.image_cache import ImageCache
    from petlbench.run.options import RunOptions
    from petlbench.study.grid import PlannedRun
    from petlbench.study.summary import Summary

__all__ = ["command"]

EPILOG = (
    "Example: petlbench bench --method full,linear,fpt --dataset digits,lesions --seed 0,1,2 "
    "--backbone petlbench_micro --image-size 64 --epochs 5"
)

_ARGUMENTS = "petlbench.arguments"

_PRESETS = click.Choice(["as-published", "best-practice", "any"])


class _Command(click.Command):
    """Remembers its arguments, to name the command that goes on from where it ends."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, args)


@click.command("bench", cls=_Command, epilog=EPILOG)
@click.option("--method", "methods", help="Names of methods, with commas between them, or all.")
@click.option("--dataset", "datasets", help="Names, folders, CSVs or cards, with commas between them.")
@click.option("--seed", "seeds", help="Seeds, with commas between them: 0,1,2.  [default: 0]")
@click.option(
    "--report", metavar="REPORT", help="What this report needs; options given beside it go before its own choices."
)
@click.option(
    "--preset",
    type=_PRESETS,
    default="any",
    show_default=True,
    help="Precision and attention kernel of --report.",
)
@click.option("--setting", "old_preset", type=_PRESETS, hidden=True)
@click.option("--study", help="The study's name: its file, and MLflow's experiment.  [default: the report's, or bench]")
@run_options
@executor_options
@click.option("--from-sweep", metavar="SWEEP", help="Settings that this sweep found best, where none are given here.")
@click.option("--retry-failed", is_flag=True, help="Try failed runs again.")
@click.option("--rerun", is_flag=True, help="Run again although results stand.")
@click.option("--accept", is_flag=True, help="Take results whose code has changed since.")
@click.option("--dry-run", is_flag=True, help="Show what the study would take; train nothing.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    /,
    methods: str | None,
    datasets: str | None,
    seeds: str | None,
    report: str | None,
    preset: Preset,
    old_preset: Preset | None,
    study: str | None,
    settings: tuple[str, ...],
    data_root: Path,
    cache_dir: Path,
    cache_size: int | None,
    cache_images: ImageCache,
    output: Path,
    tracking_uri: str | None,
    catalog: tuple[Path, ...],
    executor: str,
    workers: int,
    ray_address: str | None,
    cpus_per_run: float,
    gpus_per_run: float,
    timeout: float | None,
    from_sweep: str | None,
    retry_failed: bool,
    rerun: bool,
    accept: bool,
    dry_run: bool,
    json: bool,
    **asked: Any,
) -> int:
    """Carry out every combination of methods, datasets and seeds; what is finished is left alone.

    The groups of --set are those of petlbench run, for all methods and all datasets, and also the names of methods and
    datasets, such as --set fpt.num_prompts=8.
    """
    from petlbench.core.catalog import Catalog
    from petlbench.run.options import RunOptions
    from petlbench.study.executors.job import ExecutorOptions
    from petlbench.study.live_table import LiveTable
    from petlbench.study.runner import Study, carry_out, plan_runs

    if old_preset is not None:
        click.echo("--setting is called --preset now", err=True)
    name = study or report or "bench"
    found = Catalog(catalog)
    found.find("executor", executor)
    choices = BenchOptions(methods, datasets, seeds, settings, asked, frozenset(_given(context)), from_sweep, output)
    grids = [choices.grid(found)] if report is None else choices.grids_for(report, old_preset or preset, found)
    options = RunOptions(
        output,
        data_root,
        cache_dir,
        catalog,
        tracking_uri,
        rerun=rerun,
        accept=accept,
        cache_size=cache_size,
        cache_images=cache_images,
    )
    plans = plan_runs(name, grids, options)
    if dry_run:
        return _show_preview(name, [one for some in plans.values() for one in some], options, json)
    studies = [Study(title, some, options, timeout, retry_failed, max(1, workers)) for title, some in plans.items()]
    # Ray prints on standard output what it thinks of a lost node; that is no part of the document.
    with redirect_stdout(sys.stderr), LiveTable() as live:
        opening = ExecutorOptions(workers, address=ray_address, cpus=cpus_per_run, gpus=gpus_per_run)
        summaries = carry_out(studies, executor, opening, live)
    if json:
        print_json(_document(name, summaries))
    else:
        from petlbench.cli.study_tables import print_summary

        for summary in summaries:
            print_summary(summary, _retry(context))
    return 1 if any(summary.unfinished() for summary in summaries) else 0


def _document(name: str, summaries: Sequence[Summary]) -> dict[str, Any]:
    if len(summaries) == 1:
        return summaries[0].document()
    documents = [summary.document() for summary in summaries]
    return {"study": name, "runs": [run for one in documents for run in one["runs"]], "studies": documents}


def _given(context: click.Context) -> Iterator[str]:
    """Name the options that were given, as against those that have their default."""
    for name in context.params:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            yield name


def _retry(context: click.Context) -> str:
    arguments = [one for one in context.meta[_ARGUMENTS] if one not in ("--retry-failed", "--rerun")]
    return shlex.join(["petlbench", "bench", *arguments, "--retry-failed"])


def _show_preview(name: str, plans: Sequence[PlannedRun], options: RunOptions, json: bool) -> int:
    from petlbench.core.environment import usable_cores
    from petlbench.core.process_pool import open_workers
    from petlbench.core.progress_bars import ShownProgress
    from petlbench.run.options import RunContext
    from petlbench.study.forecast.preview import preview_grid

    with open_workers(usable_cores()) as workers, ShownProgress() as progress:
        previews = preview_grid(plans, RunContext(options, progress), workers)
    if json:
        print_json({"study": name, "runs": len(plans), "cells": [one.document() for one in previews]})
    else:
        from petlbench.cli.study_tables import print_previews

        print_previews(name, previews)
    return 0
