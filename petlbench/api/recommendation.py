"""Which method to take, for some data, a card and some hours."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from petlbench.core.catalog import Folder
from petlbench.core.errors import InputError
from petlbench.core.units import readable_size
from petlbench.core.user_files import user_path

if TYPE_CHECKING:
    from petlbench.api.forecasts import ForecastPlan
    from petlbench.recommend.answer import Answer
    from petlbench.recommend.prior import Prior
    from petlbench.recommend.replay import Replay
    from petlbench.recommend.trials import Arm
    from petlbench.sweep.search import Search
    from petlbench.sweep.sweep import SweepOptions

_SWEEP = "recommend"


@dataclass(frozen=True)
class _Plan:
    """What can take part: a search a method and backbone, the memory each is predicted to take, who is out and why."""

    searches: dict[Arm, Search] = field(default_factory=dict)
    how: SweepOptions | None = None
    memory: dict[str, int | None] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RecommendRequest:
    """What a recommendation is asked for, beside the dataset and the hours.

    Args:
        methods: Names of methods; ``all`` for every one.
        budget: Bytes of memory that a training step may take; methods are predicted, and trained in smaller parts of a
            batch where that makes them fit. None for no bound.
        metric: The score, of which more is better.
        max_params: The largest share of learnable parameters, a fraction; None for no bound.
        trials: Most trials of all methods together.
        max_latency: The most seconds that predicting one image may take here; None for no bound.
        prior: ``shipped``, ``none`` or a file of `tools/make_prior.py`.
        learn_from: A folder of own results, whose other datasets join the prior; None for none.
        test_finalists: Whether the second best is tested, too.
        seed: Of the candidates and of the trials; the finalists run on it and on the two that follow.
    """

    methods: str | Iterable[str] = "all"
    budget: int | None = None
    metric: str = "auc"
    max_params: float | None = None
    trials: int = 200
    max_latency: float | None = None
    prior: Folder = "shipped"
    learn_from: Folder | None = None
    test_finalists: bool = False
    seed: int = 0


def recommend(dataset: Any, *, hours: float, progress: bool = True, **options: Any) -> Answer:
    """The method to take for a dataset: ``.document()``, ``.sentences()``, ``.command()``, ``.report()``.

    Candidates of all methods race on the validation images: a prior says which to try first, a method is dropped while
    the interval of its difference to the leader (over images, seeds, and settings not tried) is below zero, and the
    best trials of the two best methods run again on further seeds. The recommended one alone is tested, once. A race
    that was stopped goes on.

    Args:
        dataset: A dataset as `run` takes it.
        hours: Hours that all runs may take together.
        progress: Whether a line a trial shows what goes on.
        options: ``backbone`` with one or several names, whose methods race together; fields of `RecommendRequest`
            (``methods``, ``budget``, ``metric``, …), of `petlbench.api.requests.Execution` (``executor``, ``workers``,
            …), and as for `run`.

    Raises:
        InputError: When nothing fits, the hours are too few, or a name or a setting is wrong.
        RunError: When no trial finished.
    """
    from petlbench.recommend.answer import Answer
    from petlbench.recommend.contest import Contest
    from petlbench.recommend.field import Field, Standing, entrants
    from petlbench.recommend.fit import look_at_data
    from petlbench.run.keywords import take
    from petlbench.sweep.sweep import SweepObserver, SweepOptions, TrialLines

    if not hours > 0 or not math.isfinite(hours):
        hint = "give --hours 4, or a part of an hour"
        raise InputError(f"--hours {hours:g} is no time", hint=hint, kind="bad_setting")
    request, options = take(RecommendRequest, options)
    plan = _plan(dataset, request, options)
    first = next(iter(plan.searches.values()))
    look = look_at_data(first)
    score = look.metric(request.metric, first.context.catalog)
    seeds = {"seed": request.seed, "finalist_seeds": [request.seed + each for each in first.card.finalist_seeds]}
    card = first.card.model_copy(update={"objective": f"val.{request.metric}", **seeds})
    searches = {arm: replace(search, card=card) for arm, search in plan.searches.items()}
    prior = _learned(request, first.config.dataset).united(_prior(request.prior))
    entered = Field.of(entrants(searches, card.trials or 1), prior, score, request.trials)
    standing, how = Standing(entered, look.images), plan.how or SweepOptions()
    with TrialLines() if progress else nullcontext(SweepObserver()) as observer:
        contest = Contest(entered, standing, 3600 * hours, look.train_images, how, observer, request.test_finalists)
        return Answer(contest.carry_out(), score, plan.memory, plan.refused, look.notes, hours)


def replay(
    trials: Folder,
    finals: Folder,
    *,
    budget: int = 52,
    prior: Folder = "shipped",
    leave_out: Sequence[str] = (),
    validation_images: int = 200,
) -> Replay:
    """The method to take for every task of recorded trials, and what each decision costs: ``.document()``.

    Args:
        trials: CSV of recorded trials.
        finals: CSV of what each method's winner reached on the test images.
        budget: Trials that a task may use.
        prior: ``shipped``, ``none`` or a file of `tools/make_prior.py`; the table's other tasks count besides.
        leave_out: Tasks that no prior may have seen, beside the one that is decided.
        validation_images: Images that a trial's score is made of.

    Raises:
        InputError: When a file is damaged, or the two do not fit together.
    """
    from petlbench.recommend.replay import replay as decide

    recorded, reached = (user_path(file, what="--replay") for file in (trials, finals))
    images, belief = validation_images, _prior(prior)
    return decide(recorded, reached, belief, budget=budget, images=images, leave_out=leave_out)


def _prior(name: Folder) -> Prior:
    from petlbench.recommend.prior import SHIPPED, Prior, load_prior

    if str(name) == "none":
        return Prior.of({})
    return load_prior(SHIPPED if str(name) == "shipped" else user_path(name, what="--prior"))


def _learned(request: RecommendRequest, dataset: str) -> Prior:
    """What own results of other datasets say."""
    from petlbench.recommend.prior import Prior
    from petlbench.recommend.trials import own_trials

    if request.learn_from is None:
        return Prior.of({})
    return Prior.of(own_trials(user_path(request.learn_from, what="--learn-from"), request.metric, dataset))


def _plan(dataset: Any, request: RecommendRequest, options: dict[str, Any]) -> _Plan:
    names = options.get("backbone")
    names = [name.strip() for name in names.split(",")] if isinstance(names, str) else names
    backbones = list(dict.fromkeys(names)) if names is not None else [None]
    whole = _Plan()
    for backbone in backbones:
        label = str(backbone) if len(backbones) > 1 else ""
        plan = _plan_on(dataset, request, {**options, "backbone": backbone}, label)
        whole.searches.update(plan.searches)
        whole.memory.update(plan.memory)
        whole.refused.update(plan.refused)
        whole = replace(whole, how=plan.how or whole.how)
    if not whole.searches:
        reasons = "; ".join(f"{method}: {why}" for method, why in list(whole.refused.items())[:3])
        raise InputError(
            f"no method is left: {reasons}",
            hint="give a larger budget, a smaller image size, or another backbone",
            kind="nothing_fits",
        )
    return whole


def _plan_on(dataset: Any, request: RecommendRequest, options: dict[str, Any], label: str) -> _Plan:
    """What can take part on one backbone, which is called so where there are several."""
    from petlbench.api.requests import Execution
    from petlbench.api.searches import plan_sweep
    from petlbench.recommend.trials import Arm
    from petlbench.run.keywords import take
    from petlbench.study.forecast.memory import predict_rows

    try:
        searches, how = plan_sweep(_SWEEP, request.methods, dataset, options)
    except InputError as error:
        if error.kind != "unsupported" or not label:
            raise
        return _Plan(refused={f"every method on {label}": error.message})
    refused = {each.method: str(each.refusal) for each in searches if each.search is None}
    able = {each.method: each.search for each in searches if each.search is not None}
    _, others = take(Execution, options)
    memory: dict[str, int | None] = {}
    plan = _forecast(able, request.budget, others)
    for row in predict_rows(plan.runs, plan.classes, plan.extras, folders=plan.folders):
        method = row.run.method
        memory[method] = row.figure
        if row.refused is not None:
            continue  # what cannot be predicted is tried
        if row.fits is False and not row.max_batch_size:
            refused[method] = f"a batch of one image takes more than {readable_size(request.budget or 0)}"
        elif row.fits is False:
            batch = able[method].config.training.batch_size
            pieces = {"accumulate": math.ceil(batch / (row.max_batch_size or 1))}
            again, _ = plan_sweep(_SWEEP, method, dataset, {**options, **pieces})
            able[method] = again[0].search or able[method]
    refused |= _too_many(able, request.max_params, plan.classes)
    refused |= _too_slow({m: s for m, s in able.items() if m not in refused}, request.max_latency, plan.classes)
    return _Plan(
        {Arm(method, label): search for method, search in able.items() if method not in refused},
        how,
        {Arm(method, label).title: figure for method, figure in memory.items()},
        {Arm(method, label).title: reason for method, reason in refused.items()},
    )


def _forecast(able: dict[str, Search], budget: int | None, options: dict[str, Any]) -> ForecastPlan:
    """The steps of the methods' defaults, whose memory is to be predicted."""
    from petlbench.api.forecasts import plan_forecast

    first = next(iter(able.values()))
    values = {"device": first.config.device, **options, **({} if budget is None else {"budget": budget})}
    groups = values.pop("settings", {})
    tables = {"method": "method_settings", "dataset": "dataset_settings", "training": "training"}
    values |= {key: {**groups.get(name, {}), **values.get(key, {})} for name, key in tables.items()}
    return plan_forecast(list(able), first.request.dataset, None, None, values)


def _too_many(able: dict[str, Search], most: float | None, classes: int) -> dict[str, str]:
    """The methods that learn a larger share of the parameters than is allowed."""
    from petlbench.recommend.fit import learnable_share

    if most is None:
        return {}
    shares = {method: learnable_share(search, classes) for method, search in able.items()}
    return {
        method: f"it learns {100 * share:.2f} % of the parameters, more than {100 * most:g} %"
        for method, share in shares.items()
        if share > most
    }


def _too_slow(able: dict[str, Search], most: float | None, classes: int) -> dict[str, str]:
    """The methods that take longer to predict an image on this machine than is allowed."""
    from petlbench.recommend.fit import latency

    if most is None:
        return {}
    seconds = {method: latency(search, classes) for method, search in able.items()}
    return {
        method: f"predicting an image takes {1000 * each:.3g} ms here, more than {1000 * most:g} ms"
        for method, each in seconds.items()
        if each > most
    }
