"""Methods compared over seeds, splits, images and datasets, by one model that knows all of these sources.

The score of a run is the method's true score on the dataset, plus what the split's training images, the run's seed and
the split's test images add to it. The effect is the difference of two methods' mean scores. Its variance is the sum of:

- image: the squared influences of the images on the difference (DeLong's variance of the paired difference, for the
  AUC), averaged over seeds and splits before they are squared, since all of a split's runs see the same test images;
- seed: of each method and split, the variance of the scores over seeds / their number. Seeds of two methods are
  not paired: what a seed draws differs between them;
- split: what the differences vary over splits beyond that, by the corrected variance ``(1 / K + n_test / n_train) S^2``
  (C. Nadeau and Y. Bengio, Machine Learning 52 (2003) 239);
- dataset: what the effects vary over datasets beyond that (J. Hartung and G. Knapp, Statistics in Medicine 20 (2001)
  3875, unweighted and never below the variance of the same datasets).

Degrees of freedom are Welch's and Satterthwaite's. `docs/statistics.md` shows by simulation how often it errs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace

import numpy as np
from numpy.typing import NDArray

from petlbench.metrics.classification import AUC
from petlbench.metrics.metric import Metric
from petlbench.statistics.runs import Runs, Scored, influence_reader
from petlbench.statistics.verdict import Average, Cell, Comparison, Parts, Source, add_up, judge, quantile

_TEST_TO_TRAIN = 0.25
"""Of five folds, where it is not known."""


class Evidence:
    """All finished runs of a study, and what they say about its methods.

    Args:
        records: The runs. Of several with one method, dataset, split and seed all count, so there should be one.
        metric: The score; where less of it is better, effects are still a minus b, and only who is better turns.
        level: Of all intervals.
    """

    def __init__(self, records: Iterable[Scored], metric: Metric = AUC, level: float = 0.95) -> None:
        self.level = level
        self._lower_is_better = metric.direction == "lower"
        cells: dict[tuple[str, str], list[Scored]] = {}
        for record in records:
            cells.setdefault((record.method, record.dataset), []).append(record)
        read = influence_reader(metric)
        self._runs = {key: Runs.of(members, read) for key, members in cells.items()}
        self.datasets = tuple(dict.fromkeys(dataset for _, dataset in cells))

    def cell(self, method: str, dataset: str) -> Cell | None:
        """Sum up a method's runs on a dataset; None where there is none.

        The images' part is that of the runs' stored intervals, which hold for few positives; predictions are not read.
        """
        runs = self._runs.get((method, dataset))
        return None if runs is None else _cell(runs, self.level)

    def compare(self, a: str, b: str, dataset: str) -> Comparison | None:
        """Compare two methods on a dataset, over the splits that both have; None where they share no split."""
        first, second = self._runs.get((a, dataset)), self._runs.get((b, dataset))
        if first is None or second is None or not (shared := [each for each in first.splits if each in second.splits]):
            return None
        return self._turned(_compare((a, b, dataset), (first.only(shared), second.only(shared)), self.level))

    def average(self, a: str, b: str, datasets: Sequence[str] | None = None) -> Average | None:
        """Compare two methods over datasets.

        Args:
            a: A method.
            b: The other.
            datasets: The datasets, as far as both have runs on them; all without it.

        Returns:
            None where they share no dataset.
        """
        pairs = [self.compare(a, b, dataset) for dataset in datasets or self.datasets]
        effects = [effect for effect in pairs if effect is not None]
        return Average(*(self._turned(mean(effects, self.level)) for mean in (_here, _elsewhere))) if effects else None

    def _turned(self, comparison: Comparison) -> Comparison:
        """The same with the probability that a is better, where less of the score is."""
        if not self._lower_is_better or comparison.p_better is None:
            return comparison
        return replace(comparison, p_better=1 - comparison.p_better)


def _compare(names: tuple[str, str, str], pair: tuple[Runs, Runs], level: float) -> Comparison:
    first, second = pair
    differences = first.means - second.means
    effect = float(differences.mean())
    a, b = first.influence, second.influence
    image = None if a is None or b is None else a.minus(b).source()
    sources = first.seed_sources, second.seed_sources
    seeds = None if sources[0] is None or sources[1] is None else [*sources[0], *sources[1]]
    source, parts, note = _combined(image, seeds, _split_source(differences, pair))
    return Comparison(
        a=names[0],
        b=names[1],
        dataset=names[2],
        effect=effect,
        **asdict(judge(effect, source, level)),
        parts=parts,
        seeds=(first.seeds, second.seeds),
        splits=len(differences),
        datasets=1,
        few=_few(first) or _few(second),
        note=note,
        level=level,
    )


def _split_source(differences: NDArray[np.float64], pair: Sequence[Runs]) -> Source | None:
    """The corrected variance of the mean over splits: all that differs between splits, seeds and images included."""
    count = len(differences)
    if count < 2:
        return None
    shares = [share for runs in pair if (share := runs.test_to_train) is not None]
    share = float(np.mean(shares)) if shares else _TEST_TO_TRAIN
    return Source((1 / count + share) * float(differences.var(ddof=1)), count - 1)


def _combined(
    image: Source | None, seeds: list[Source] | None, split: Source | None
) -> tuple[Source | None, Parts, str]:
    """Add the sources up: the splits' variance where it is the greater, else that of images and seeds."""
    seed = None if seeds is None else add_up(seeds)
    inside = add_up([image, *(seeds or [])]) if image is not None else None
    explained = (image.variance if image else 0.0) + (seed.variance if seed else 0.0)
    rest = None if split is None else max(0.0, split.variance - explained)
    parts = Parts(image.variance if image else None, seed.variance if seed else None, rest)
    if split is not None and (split.variance >= explained or seed is None or image is None):
        return Source(max(split.variance, explained), split.df), parts, ""
    if inside is None:
        return None, parts, "the predictions are not kept, so that the images' part is not known"
    if seed is None:
        return None, parts, "one seed and one split: nothing says what another seed would give"
    return inside, parts, ""


def _few(runs: Runs) -> bool:
    return any(record.interval["few"] for record in runs.records if record.interval)


def _here(effects: Sequence[Comparison], level: float) -> Comparison:
    """The mean effect on these very datasets: their variances add up."""
    share = len(effects) ** -2
    missing = [each.dataset for each in effects if each.error is None]
    sources = [Source(share * each.error**2, each.df or 1.0) for each in effects if each.error is not None]
    columns = zip(*((each.parts.image, each.parts.seed, each.parts.split) for each in effects), strict=True)
    parts = Parts(*(None if None in column else share * sum(filter(None, column)) for column in columns))
    note = f"too few runs on {', '.join(missing)}" if missing else ""
    return _over(effects, None if missing else add_up(sources), parts, note, level)


def _elsewhere(effects: Sequence[Comparison], level: float) -> Comparison:
    """The mean effect with datasets drawn: what the effects vary, and never less than on these very datasets."""
    here = _here(effects, level)
    count = len(effects)
    if count < 3:
        return _over(effects, None, here.parts, f"{count} of the 3 datasets that it takes to speak of others", level)
    spread = float(np.var([each.effect for each in effects], ddof=1)) / count
    inside = here.error**2 if here.error is not None else 0.0
    parts = replace(here.parts, dataset=max(0.0, spread - inside))
    return _over(effects, Source(max(spread, inside), count - 1), parts, "", level)


def _over(effects: Sequence[Comparison], source: Source | None, parts: Parts, note: str, level: float) -> Comparison:
    effect = float(np.mean([each.effect for each in effects]))
    return Comparison(
        a=effects[0].a,
        b=effects[0].b,
        dataset="",
        effect=effect,
        **asdict(judge(effect, source, level)),
        parts=parts,
        seeds=(min(each.seeds[0] for each in effects), min(each.seeds[1] for each in effects)),
        splits=min(each.splits for each in effects),
        datasets=len(effects),
        few=any(each.few for each in effects),
        note=note,
        level=level,
    )


def _cell(runs: Runs, level: float) -> Cell:
    scores = np.concatenate(runs.scores)
    mean = float(runs.means.mean())
    seeds, split = runs.seed_sources, _split_source(runs.means, [runs])
    sides = [_side(runs, end) for end in ("low", "high")]
    bounds = [_combined(image, seeds, split) for image in sides]
    alone = seeds is None and split is None
    sources = sides if alone else [source for source, _, _ in bounds]
    low, high = (
        None if source is None else quantile(level, source.df) * math.sqrt(source.variance) for source in sources
    )
    return Cell(
        mean,
        std=float(scores.std(ddof=1)) if len(scores) > 1 else None,
        low=None if low is None else max(0.0, mean - low),
        high=None if high is None else min(1.0, mean + high),
        runs=len(scores),
        few=_few(runs),
        note="one run: without what another seed would give" if alone and low is not None else bounds[0][2],
    )


def _side(runs: Runs, end: str) -> Source | None:
    """The images' variance on one side of the mean, from the runs' own intervals: the mean of their distances."""
    distances = [
        abs(record.score - record.interval[end]) / quantile(record.interval["level"], math.inf)
        for record in runs.records
        if record.interval is not None
    ]
    if len(distances) < len(runs.records):
        return None
    return Source(float(np.mean(distances)) ** 2 / len(runs.splits), math.inf)
