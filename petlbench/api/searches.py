"""From keywords to the searches that they mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from petlbench.api.requests import carried_out, method_names, with_recipe
from petlbench.run.keywords import Settings, by_group, common_request, dataset_names, take
from petlbench.study.protocol import Basis, load_protocol

if TYPE_CHECKING:
    from petlbench.sweep.sweep import SearchOutcome, SweepOptions


@dataclass(frozen=True)
class SweepRequest:
    """What a sweep is of, beside its methods and datasets.

    Args:
        trials: Trials of every method; None for the sweep's own number.
        search_sizes: Whether the methods' sizes are searched, too; None for the sweep's own choice.
        test: Whether the winner is run on the sweep's seeds, or the protocol's, and tested once on each.
        study: The study of the winners' runs; None for the sweep's name.
        storage: Address of the database of trials; None for a file in the output folder.
        protocol: Name of a protocol, or the path of its file; what is given beside it, or searched, goes before it.
        recipe: Name of the recipes that methods take their settings from; what they have is not searched.
        settings: Settings of the groups ``method``, ``dataset`` and ``training``, and of single methods by their names;
            what is given is not searched.
    """

    trials: int | None = None
    search_sizes: bool | None = None
    test: bool = True
    study: str | None = None
    storage: str | None = None
    protocol: str | None = None
    recipe: str | None = None
    settings: Settings = field(default_factory=dict)


def plan_sweep(
    sweep: str, methods: Any, datasets: Any, options: Mapping[str, Any]
) -> tuple[list[SearchOutcome], SweepOptions]:
    """The searches that the keywords of `sweep` mean, and how they are carried out."""
    from petlbench.sweep.spec import load_sweep
    from petlbench.sweep.sweep import SweepOptions, plan_searches

    execution, run_options, catalog, values = carried_out(options)
    request, values = take(SweepRequest, values)
    protocol = None if request.protocol is None else load_protocol(catalog, request.protocol)
    track = None if request.search_sizes is None else "tuned" if request.search_sizes else "matched"
    own = {"trials": request.trials, "track": track, "seeds": protocol and protocol.seeds}
    changes = {name: value for name, value in own.items() if value is not None}
    card = load_sweep(catalog.find("sweep", sweep), **changes)
    names = method_names(methods, catalog)
    groups = by_group(request.settings, names)
    shared = common_request(values, {} if protocol is None else protocol.common, groups, "sweep()")
    requests = [
        replace(shared, method=name, dataset=dataset, method_settings={**shared.method_settings, **groups[name]})
        for dataset in dataset_names(datasets, run_options)
        for name in names
    ]
    if request.recipe is not None:
        requests = [with_recipe(catalog, request.recipe, each).below(each) for each in requests]
    searches = plan_searches(
        sweep,
        card,
        requests,
        run_options,
        study_name=request.study,
        timeout=execution.timeout,
        basis=Basis(protocol),
    )
    how = SweepOptions(request.storage, execution.executor, execution.limits, request.test, execution.retry_failed)
    return searches, how
