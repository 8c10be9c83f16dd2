"""Change the engine's code, one place at a time, and name the changes that no test notices (``make mutants``).

Cosmic Ray makes the changes, in a copy of the checkout. Its sessions are kept in ``results/mutants``: stopped, the same
command goes on. A survivor is killed by a test, or stands in ``tools/harmless_mutants.toml`` with the reason.
"""

from __future__ import annotations

import ast
import os
import random
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

import click
from cosmic_ray.commands import init
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.testing import run_tests
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkItem, WorkResult

ROOT = Path(__file__).resolve().parents[1]
HARMLESS = ROOT / "tools" / "harmless_mutants.toml"
SUBJECTS = {
    "petlbench/metrics/classification.py": "tests/metrics",
    "petlbench/metrics/intervals.py": "tests/metrics/test_intervals.py",
    "petlbench/metrics/influence.py": "tests/metrics/test_influence.py",
    "petlbench/metrics/efficiency.py": "tests/metrics tests/results/test_table.py",
    "petlbench/data/splits.py": "tests/data/test_splits.py",
    "petlbench/data/manifest.py": "tests/data/test_manifest.py tests/data/test_splits.py",
    "petlbench/training/step.py": "tests/training/test_step.py",
    "petlbench/training/trainer.py": "tests/training/test_trainer.py tests/training/test_step.py",
    "petlbench/training/evaluation.py": "tests/training tests/results/test_journal.py",
    "petlbench/features/store.py": "tests/features/test_store.py tests/features/test_store_plan.py",
    "petlbench/run/record.py": "tests/run/test_record.py tests/results",
    "petlbench/results/journal.py": "tests/results/test_journal.py",
    "petlbench/core/config.py": "tests/core/test_config.py",
    "petlbench/sweep/trial_queue.py": "tests/sweep/test_trial_queue.py",
    "petlbench/sweep/search.py": "tests/sweep/test_search.py",
    "petlbench/metrics/multilabel.py": "tests/metrics/test_multilabel.py",
    "petlbench/metrics/regression.py": "tests/metrics/test_regression.py",
    "petlbench/metrics/groups.py": "tests/metrics/test_groups.py",
    "petlbench/statistics/comparison.py": "tests/statistics/test_comparison.py tests/statistics/test_evidence.py",
    "petlbench/statistics/ranks.py": "tests/statistics/test_ranks.py",
    "petlbench/statistics/subgroups.py": "tests/statistics/test_subgroups.py",
    "petlbench/statistics/clinical.py": "tests/statistics/test_clinical.py",
    "petlbench/data/draws.py": "tests/data/test_draws.py",
    "petlbench/data/order.py": "tests/data/test_order.py",
    "petlbench/training/selection.py": "tests/training/test_selection.py",
    "petlbench/training/calibration.py": "tests/training/test_calibration.py",
    "petlbench/training/optim.py": "tests/training",
    "petlbench/features/quantization.py": "tests/features/test_quantization.py",
    "petlbench/results/table.py": "tests/results/test_table.py",
}
"""What is changed, and the tests that are to notice."""


@click.command()
@click.option("--sample", type=click.IntRange(1), help="So many changes of each file, drawn at random.  [default: all]")
@click.option("--seed", default=0, show_default=True, help="Which sample: another seed draws other changes.")
@click.option("--only", default="", help="Only files whose path has this in it.")
@click.option("--timeout", default=600.0, show_default=True, help="Seconds after which tests that hang have noticed.")
def main(sample: int | None, seed: int, only: str, timeout: float) -> None:
    """Try changes and list the survivors; the status is 1 where one of them is not named as harmless."""
    unnamed = 0
    for subject, tests in SUBJECTS.items():
        if only in subject:
            unnamed += _try(subject, tests, sample, seed, timeout)
    sys.exit(1 if unnamed else 0)


def _try(subject: str, tests: str, sample: int | None, seed: int, timeout: float) -> int:
    """Try the changes of one file; returns how many survive that are not named as harmless."""
    sessions = ROOT / "results" / "mutants"
    sessions.mkdir(parents=True, exist_ok=True)
    with use_db(str(sessions / f"{Path(subject).stem}.sqlite"), WorkDB.Mode.create) as session, _copy():
        if not session.num_work_items:
            init([Path(subject)], session, {})
        items = [item for item in session.work_items if _has_effect(item, subject)]
        items.sort(key=lambda item: (item.mutations[0].start_pos, item.mutations[0].operator_name))
        if sample is not None and sample < len(items):
            items = random.Random(seed).sample(items, sample)  # noqa: S311
        results = dict(session.results)
        command = f"{sys.executable} -m pytest -x -q -p no:cacheprovider -m 'not slow and not gpu' {tests}"
        pending = [item for item in items if item.job_id not in results]
        if pending and run_tests(command, timeout)[0] != TestOutcome.SURVIVED:
            raise click.ClickException(f"the tests of {subject} fail without a change: {tests}")
        for item in pending:
            results[item.job_id] = mutate_and_test(item.mutations, command, timeout)
            session.set_result(item.job_id, results[item.job_id])
    return _say(subject, [results[item.job_id] for item in items])


@contextmanager
def _copy() -> Iterator[None]:
    """Work in a copy of the checkout, which Python finds before the installed one."""
    with tempfile.TemporaryDirectory(prefix="petlbench-mutants-") as folder:
        copy = Path(folder) / "petlbench"
        shutil.copytree(ROOT, copy, symlinks=True, ignore=_beside_the_code)
        os.environ |= {"PYTHONPATH": str(copy), "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        # A file that is changed twice in a second has the time of its compiled form.
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        with chdir(copy):
            yield


def _beside_the_code(folder: str, names: list[str]) -> list[str]:
    own = [name for name in names if name.startswith(".") or name == "__pycache__"]
    return own + (["results", "build", "dist"] if Path(folder) == ROOT else [])


def _has_effect(item: WorkItem, subject: str) -> bool:
    """Whether a change may do anything: annotations are never evaluated."""
    line, column = item.mutations[0].start_pos
    return not any(_covers(node, line, column) for node in _annotations(ROOT / subject))


def _annotations(file: Path) -> Iterator[ast.expr]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        for name in ("annotation", "returns"):
            if isinstance(annotation := getattr(node, name, None), ast.expr):
                yield annotation


def _covers(node: ast.expr, line: int, column: int) -> bool:
    end = (node.end_lineno or node.lineno, node.end_col_offset or 0)
    return (node.lineno, node.col_offset) <= (line, column) < end


def _say(subject: str, results: list[WorkResult]) -> int:
    """Print what became of the changes; returns how many survive that are not named as harmless."""
    with HARMLESS.open("rb") as file:
        harmless = {(entry["line"], entry["change"]): entry["reason"] for entry in tomllib.load(file)["harmless"]}
    survivors = [result for result in results if result.test_outcome == TestOutcome.SURVIVED]
    print(f"{subject}: {len(results)} tried, {len(results) - len(survivors)} killed, {len(survivors)} survived")
    unnamed = 0
    for result in survivors:
        line, change = _changed_lines(result.diff or "")
        reason = harmless.get((line, change))
        unnamed += reason is None
        print(f"    - {line}\n    + {change}\n      {reason or 'NO TEST NOTICES'}", flush=True)
    return unnamed


def _changed_lines(diff: str) -> tuple[str, str]:
    """The line that was changed, and what it was changed into."""
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++"))]
    before, after = (" ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    return before, after


if __name__ == "__main__":
    main()
