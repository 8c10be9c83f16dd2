"""From keywords to the forecasts of memory that they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petlbench.api.requests import method_names
from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.core.request import request_of
from petlbench.data.dataset import describe_dataset
from petlbench.run.keywords import TABLES, sort_options, take
from petlbench.study.grid import Grid
from petlbench.study.planned_run import PlannedRun

if TYPE_CHECKING:
    from petlbench.report.kinds.memory import Forecast
    from petlbench.study.forecast.memory import Extras, Row
    from petlbench.study.grid import Vary
    from tools.published_memory import Comparison

# Classes of the data where none are named: as many as in the papers.
_CLASSES = 7


@dataclass(frozen=True)
class ForecastPlan:
    """The steps whose memory is predicted."""

    runs: Sequence[PlannedRun]
    classes: int
    extras: Extras
    folders: tuple[Path, ...]
    varied: Vary | None
    task: Mapping[str, Any]

    def forecast(self, rows: Sequence[Row], comparison: Comparison | None) -> Forecast:
        """What was predicted, with what holds for all of it."""
        from petlbench.report.kinds.memory import Forecast
        from petlbench.study.forecast.memory import LARGEST, common_settings

        config = common_settings(self.runs)
        config |= {
            **self.task,
            "context": self.extras.context if config["device"] == "cuda" else None,
            "budget": self.extras.budget,
            "largest_batch_size": LARGEST,
            "vary": {self.varied.name: list(self.varied.values)} if self.varied is not None else None,
        }
        return Forecast(rows, self.extras, config, self.varied, comparison)


def plan_forecast(
    methods: Any, dataset: str | None, classes: int | None, vary: str | None, options: Mapping[str, Any]
) -> ForecastPlan:
    """The steps that the keywords of `forecast_memory` mean."""
    from petlbench.study.forecast.memory import Extras
    from petlbench.study.grid import Vary

    run_options, values = sort_options(options)
    extras, values = take(Extras, values)
    catalog = Catalog(run_options.catalogs)
    names = method_names(methods, catalog)
    varied = Vary.parse(vary) if vary is not None else None
    settings = {name: values.get(key, {}) for name, key in TABLES.items()}
    if varied is not None:
        varied.refuse_beside(values, settings)
    sized = {}
    if dataset is not None:
        if classes is not None:
            message = "--dataset and --classes exclude each other: a dataset has its own classes"
            raise InputError(message, hint="leave one of them out", kind="usage")
        info = describe_dataset(dataset, catalog=catalog, data_root=run_options.data_root, settings=settings["dataset"])
        classes, sized = len(info.card.classes), {"image_size": info.card.image_size}
    elif settings["dataset"]:
        message = "--set dataset.… goes with --dataset, which is not given"
        raise InputError(message, hint="add --dataset NAME", kind="usage")
    number = _CLASSES if classes is None else classes
    fixed = {"method": "", "weights": "random", "device": "cuda", **sized}
    request = request_of({**fixed, **values, "dataset_settings": {}}, "forecast_memory()")
    runs = Grid(names, (), (0,), request, vary=varied).plans(catalog, run_options.data_root)
    task = {"classes": number, "dataset": dataset, "settings": settings}
    return ForecastPlan(runs, number, extras, run_options.catalogs, varied, task)
