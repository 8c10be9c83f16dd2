"""From the options of ``petlbench bench`` to the matrices that they mean, with a report's own choices or without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petlbench.cli.options import parse_assignments, parse_list, request_values
from petlbench.core.errors import InputError

if TYPE_CHECKING:
    from petlbench.core.catalog import Catalog
    from petlbench.report.spec import Preset
    from petlbench.study.grid import Grid, Tuned

__all__ = ["BenchOptions"]


@dataclass(frozen=True)
class BenchOptions:
    """What the user asked for.

    Args:
        methods: Names with commas between them, or ``all``; None where none are named.
        datasets: The same of datasets.
        seeds: The same of seeds.
        settings: What was given with ``--set``.
        asked: The values of the options of a run by name.
        given: Names of the options that were given; the others have their default.
        sweep: The sweep whose best settings are taken; None for none.
        output: Folder of all results.
    """

    methods: str | None
    datasets: str | None
    seeds: str | None
    settings: Sequence[str]
    asked: Mapping[str, Any]
    given: frozenset[str]
    sweep: str | None
    output: Path

    def grid(self, catalog: Catalog) -> Grid:
        """Every combination of what is named.

        Raises:
            InputError: When methods or datasets are not named, or a name or setting is wrong.
        """
        if self.methods is None or self.datasets is None:
            raise InputError(
                "bench needs --method and --dataset, or --report", hint="see petlbench bench --help", kind="usage"
            )
        seeds = parse_list(self.seeds or "0", "--seed", _whole)
        return self._combine(self._named_methods(catalog), self._named_datasets(), seeds, {}, self.asked, catalog)

    def grids_for(self, report: str, setting: Preset, catalog: Catalog) -> list[Grid]:
        """What a report needs, with what is named here in the place of its own choices.

        Args:
            report: Name of the report.
            setting: The standard setting that it is wanted in.
            catalog: The catalogues.

        Raises:
            InputError: When the report needs no run, or none of the methods that are named.
        """
        from petlbench.report.spec import load_report, required_study

        methods = None if self.methods is None else self._named_methods(catalog)
        found = []
        for one in required_study(load_report(catalog, report), setting)["matrices"]:
            datasets = one["datasets"] if self.datasets is None else self._named_datasets()
            seeds = one["seeds"] if self.seeds is None else parse_list(self.seeds, "--seed", _whole)
            chosen = [name for name in one["methods"] if methods is None or name in methods]
            asked = self._before(one["request"])
            if chosen:
                found.append(self._combine(chosen, datasets, seeds, one["settings"], asked, catalog))
        if not found:
            which = "" if methods is None else f" of {', '.join(methods)}"
            raise InputError(f"report {report} needs no run{which}", hint="see petlbench report --help", kind="usage")
        return found

    def _before(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The options of a run: what was given, else what a report wants, else the default."""
        wanted = {**request, **request.get("training", {})}
        wanted.pop("training", None)
        kept = {name: value for name, value in wanted.items() if name not in self.given}
        return {**self.asked, **kept}

    def _combine(
        self,
        methods: list[str],
        datasets: list[str],
        seeds: list[int],
        own: Mapping[str, Mapping[str, Any]],
        asked: Mapping[str, Any],
        catalog: Catalog,
    ) -> Grid:
        from petlbench.core.request import Request
        from petlbench.data.dataset import find_card
        from petlbench.study.grid import Grid

        groups = (*methods, *(find_card(one, catalog=catalog)[0] for one in datasets))
        given = parse_assignments(self.settings, ("method", "dataset", "training", *groups))
        request = Request(
            method="",
            method_settings=given["method"],
            dataset_settings=given["dataset"],
            **request_values(asked, given["training"]),
        )
        settings = {name: {**own.get(name, {}), **given[name]} for name in groups}
        tuned = {} if self.sweep is None else _tuned(self.output, self.sweep, methods, datasets)
        return Grid(methods, datasets, seeds, request, {name: one for name, one in settings.items() if one}, tuned)

    def _named_methods(self, catalog: Catalog) -> list[str]:
        names = parse_list(self.methods or "", "--method", str)
        return (
            list(catalog.entries("method")) if names == ["all"] else [catalog.find("method", one).name for one in names]
        )

    def _named_datasets(self) -> list[str]:
        return parse_list(self.datasets or "", "--dataset", str)


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise InputError(f"--seed: '{text}' is no whole number", hint="for example --seed 0,1,2", kind="usage")
    return int(text)


def _tuned(output: Path, sweep: str, methods: Sequence[str], datasets: Sequence[str]) -> dict[tuple[str, str], Tuned]:
    """What a sweep found best for each method on each dataset."""
    from petlbench.core.config import RunConfig
    from petlbench.study.grid import Tuned
    from petlbench.sweep.winner import read_winner

    found = {}
    for method, dataset in product(methods, datasets):
        name = RunConfig.model_construct(dataset=dataset).dataset_name
        best = read_winner(output, sweep, method, name)["best"]
        found[method, dataset] = Tuned(best["training"], best["method"])
    return found
