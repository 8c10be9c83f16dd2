"""``petlbench bench``: every combination of methods, datasets and seeds."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from petlbench.cli.help import GroupedCommand
from petlbench.cli.options import (
    PRESETS,
    datasets_option,
    executor_options,
    json_option,
    list_option,
    methods_option,
    parse_assignments,
    parse_list,
    protocol_options,
    request_values,
    run_options,
)
from petlbench.cli.output import print_json, say
from petlbench.core.errors import InputError

if TYPE_CHECKING:
    from petlbench.study.forecast.preview import Preview
    from petlbench.study.summary import Summary

A = TypeVar("A")

EPILOG = (
    "Example: petlbench bench --method full,linear,fpt --dataset digits,lesions --seed 0,1,2 "
    "--backbone petlbench_micro --image-size 64 --epochs 5"
)

_ARGUMENTS = "petlbench.arguments"
_SEVERAL: Mapping[str, Callable[[str], float]] = {"shots": int, "train_fraction": float, "draw": int}


class _Command(GroupedCommand):
    """Remembers its arguments, to name the command that goes on from where it ends."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, args)


@click.command("bench", cls=_Command, epilog=EPILOG)
@methods_option()
@datasets_option()
@list_option("--seed", "seeds", help="Seeds, with commas between them: 0,1,2.  [default: 0]")
@click.option(
    "--suite",
    metavar="SUITE",
    help="Datasets, seeds and settings of petlbench list suites; options given beside it go before its own.",
)
@click.option(
    "--report", metavar="REPORT", help="What this report needs; options given beside it go before its own choices."
)
@click.option(
    "--preset", type=PRESETS, default="any", show_default=True, help="Precision and attention kernel of --report."
)
@click.option("--setting", "old_preset", type=PRESETS, hidden=True)
@click.option(
    "--study",
    help="The study's name: its file, and MLflow's experiment.  [default: the suite's, the report's, or bench]",
)
@protocol_options
@partial(run_options, several=_SEVERAL)
@executor_options
@click.option("--from-sweep", metavar="SWEEP", help="Settings that this sweep found best, where none are given here.")
@click.option(
    "--vary",
    metavar="NAME=V1,V2,…",
    help="A setting that takes several values, such as normalize=half,imagenet,none: a study of each.",
)
@click.option("--retry-failed", is_flag=True, help="Try failed runs again.")
@click.option("--rerun", is_flag=True, help="Run again although results stand.")
@click.option("--accept", is_flag=True, help="Take results whose code has changed since.")
@click.option("--verify", is_flag=True, help="Read all data of finished runs, rather than trust times of files.")
@click.option("--dry-run", is_flag=True, help="Show what the study would take; train nothing.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    /,
    methods: str | None,
    datasets: str | None,
    seeds: str | None,
    settings: tuple[str, ...],
    dry_run: bool,
    json: bool,
    **options: Any,
) -> int:
    """Carry out every combination of methods, datasets and seeds; what is finished is left alone.

    The groups of --set are those of petlbench run, for all methods and all datasets, and also the names of methods and
    datasets, such as --set fpt.num_prompts=8.
    """
    import petlbench as pb
    from petlbench.cli.study_tables import print_summary

    named = (
        None if methods is None else parse_list(methods, "--method", str),
        None if datasets is None else parse_list(datasets, "--dataset", str),
        None if seeds is None else parse_list(seeds, "--seed", partial(_number, "--seed", int)),
    )
    if (old_preset := options.pop("old_preset")) is not None:
        say("--setting is called --preset now", err=True)
        options["preset"] = old_preset
    groups = parse_assignments(settings)
    options = {**request_values(_with_lists(options), groups.pop("training", {})), "settings": groups}
    name = options.get("study") or options.get("report") or options.get("suite") or "bench"
    if dry_run:
        from petlbench.core.environment import usable_cores

        searches = [search.preview() for search in pb.preview_bench_search(*named, **options)]
        previews = pb.preview_bench(*named, **{**options, "workers": usable_cores()})
        return _show_dry_run(name, searches, previews, json)
    # Ray prints on standard output what it thinks of a lost node; that is no part of the document.
    with redirect_stdout(sys.stderr):
        summaries = pb.bench(*named, **options).summaries
    if json:
        print_json(_document(name, summaries))
    else:
        arguments = [argument for argument in context.meta[_ARGUMENTS] if argument not in ("--retry-failed", "--rerun")]
        for summary in summaries:
            print_summary(summary, shlex.join(["petlbench", "bench", *arguments, "--retry-failed"]))
    return 1 if any(summary.unfinished() for summary in summaries) else 0


def _show_dry_run(name: str, searches: Sequence[Any], previews: Sequence[Preview], json: bool) -> int:
    """Print what a study would take, the searches in front first."""
    from petlbench.cli.study_tables import print_previews, print_searches

    if json:
        front = {"searches": searches} if searches else {}
        cells, runs = [preview.document() for preview in previews], sum(preview.runs for preview in previews)
        print_json({"study": name, "runs": runs, "cells": cells, **front})
        return 0
    if searches:
        print_searches(searches)
    print_previews(name, previews)
    return 0


def _with_lists(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, those that take several values as lists of numbers."""
    flags = {name: f"--{name.replace('_', '-')}" for name in _SEVERAL if options[name] is not None}
    lists = {n: parse_list(options[n], flag, partial(_number, flag, _SEVERAL[n])) for n, flag in flags.items()}
    return {**options, **lists}


def _document(name: str, summaries: Sequence[Summary]) -> dict[str, Any]:
    documents = [summary.document() for summary in summaries]
    if len(documents) == 1:
        return documents[0]
    return {"study": name, "runs": [run for part in documents for run in part["runs"]], "studies": documents}


def _number(option: str, kind: Callable[[str], A], text: str) -> A:
    if kind is int and not text.isdecimal():
        raise InputError(f"{option}: '{text}' is no whole number", hint=f"for example {option} 0,1,2", kind="usage")
    try:
        return kind(text)
    except ValueError:
        hint = f"for example {option} 0.05,0.1,1"
        raise InputError(f"{option}: '{text}' is no number", hint=hint, kind="usage") from None
