"""What was done in a study, in sentences: each is made of stored results alone, and is empty where they do not say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from petlbench.core.units import readable_size
from petlbench.report.alignment import align_cells
from petlbench.report.context import Context, Line
from petlbench.report.document import Column
from petlbench.report.inputs import ReportInputs
from petlbench.report.selection import check_alike, check_cells
from petlbench.results.stored import Stored

_SPLITS = ("train", "val", "test")
_MOST_RATES = 12


@dataclass(frozen=True)
class Statements:
    """Sentences on the finished runs of a report, which are of one setting."""

    inputs: ReportInputs

    @cached_property
    def context(self) -> Context:
        """The runs in rows and columns.

        Raises:
            InputError: When there are none, or they are of several settings.
        """
        context = self.inputs.context
        check_alike(context.grid.all_runs)
        check_cells(context.grid.all_runs, lambda run: run.method)
        return context

    @property
    def runs(self) -> Sequence[Stored]:
        """The finished runs."""
        return self.context.grid.all_runs

    @property
    def lines(self) -> list[Line]:
        """The methods that have finished runs."""
        return [line for line in self.context.grid.lines if line.all_runs]

    @cached_property
    def by_dataset(self) -> dict[str, Stored]:
        """One run of each dataset, by its title."""
        titles = self.context.grid.titles
        return {titles[run.dataset]: run for run in reversed(self.runs)}

    def methods(self) -> str:
        """Which methods adapt what."""
        entries = self.inputs.catalog.entries("method")
        names = []
        for line in self.lines:
            paper = str(entries[line.method].card.get("paper", "")) if line.method in entries else ""
            source = paper.rpartition("arxiv.org/abs/")[2] if "arxiv.org/abs/" in paper else ""
            names.append(f"{line.title} (arXiv:{source})" if source else line.title)
        config, parameters = self.runs[0].config, self.runs[0].document.get("parameters") or {}
        size = f" ({parameters['total'] / 1e6:.1f} million parameters with head)" if parameters.get("total") else ""
        return f"We compared {_count(names, 'method')}, {_listed(names)}, on the backbone {config['backbone']}{size}."

    def learnable(self) -> str:
        """How much each method learns."""
        shares = [(line.title, line.figures("learnable_ratio")) for line in self.lines]
        texts = [f"{title} {100 * sum(ratios) / len(ratios):.3g} %" for title, ratios in shares if ratios]
        return f"Learnable parameters, of all with the head: {_listed(texts)}." if texts else ""

    def data(self) -> str:
        """Which datasets, with how many images."""
        texts = []
        for title, run in self.by_dataset.items():
            data = run.document["data"]
            images = [
                f"{data['images'][split]:,} {split}" for split in _SPLITS if (data.get("images") or {}).get(split)
            ]
            classes = len(data.get("classes") or ())
            synthetic = "synthetic, " if data.get("synthetic") else ""
            counts = f" images of the first split: {', '.join(images)}" if images else " number of images not stored"
            texts.append(f"{title} ({synthetic}{classes} classes;{counts})")
        return f"The data were {_listed(texts)}."

    def classes(self) -> str:
        """How many training images there are of each class."""
        texts = []
        for title, run in self.by_dataset.items():
            counts = (run.document["data"].get("images_by_class") or {}).get("train") or {}
            if counts:
                texts.append(f"{title}: {', '.join(f'{name} {count:,}' for name, count in counts.items())}")
        return f"Training images by class: {'; '.join(texts)}." if texts else ""

    def exclusions(self) -> str:
        """Which images were skipped."""
        skipped = {title: len(run.document["data"].get("skipped") or ()) for title, run in self.by_dataset.items()}
        texts = [f"{count} of {title}" for title, count in skipped.items() if count]
        return (
            f"Unreadable images were left out: {_listed(texts)}." if texts else "No image was left out as unreadable."
        )

    def preprocessing(self) -> str:
        """How images are prepared."""
        config = self.runs[0].config
        texts = _unique(text for run in self.runs for text in run.document.get("preprocessing", {}).values())
        size = f"Images were resized to {config['image_size']} x {config['image_size']} pixels"
        return f"{size}; preparation: {'; '.join(texts)}." if texts else f"{size}."

    def splits(self) -> str:
        """How images are split, and at which level."""
        schemes = _unique(_scheme(run) for run in self.runs)
        grouped = [t for t, run in self.by_dataset.items() if any((run.document["data"].get("groups") or {}).values())]
        groups = (
            f" Images of one group (patient or lesion) stood on one side, on {_listed(grouped)}." if grouped else ""
        )
        others = [title for title in self.by_dataset if title not in grouped]
        unknown = (
            f" Groups are not known on {_listed(others)}, so that sides are disjoint by image only." if others else ""
        )
        return f"Splits: {'; '.join(schemes)}.{groups}{unknown}"

    def initialization(self) -> str:
        """What the parameters start from."""
        weights = _unique(str(run.config["weights"]) for run in self.runs)
        names = _listed("the backbone's own pre-trained weights" if each == "default" else each for each in weights)
        seeds = sorted({run.seed for run in self.runs})
        return f"Weights: {names}. What a method adds was initialised anew with each seed ({_listed(map(str, seeds))})."

    def training(self) -> str:
        """How methods are trained."""
        training = self.runs[0].config["training"]
        rates = [f"{line.title} {_listed(_unique(map(_rate, line.all_runs)))}" for line in self.lines]
        shown = f"; learning rates: {_listed(rates)}" if len(rates) <= _MOST_RATES else ""
        protocols = _listed(_unique(run.protocol for run in self.runs if run.protocol))
        under = f"Under the protocol {protocols}, each" if protocols else "Each"
        return (
            f"{under} was trained for {_of(training['epochs'], 'epoch')} with batches of {training['batch_size']}, "
            f"{training['optimizer']}, {training['schedule']} schedule{shown}."
        )

    def selection(self) -> str:
        """How the model is chosen, and how often the test split is read."""
        scores = _listed(_unique(str(run.document["data"].get("selection", "auc")) for run in self.runs))
        where = (
            "the epoch with the best validation score"
            if self.runs[0].config.get("train_on") == "train"
            else "the last epoch"
        )
        return f"Of each run {where} was kept ({scores}); the test split was read once, after that."

    def score(self) -> str:
        """Which score, and what its uncertainty is made of."""
        return (
            f"Performance is {self.context.metric_title} of the test split, as mean and standard deviation over "
            f"{self._repeats()}; 95 % intervals and differences add up the variance of images (groups where they are "
            "known), seeds and splits."
        )

    def results(self) -> str:
        """What came out: each method's average."""
        column, averages = Column("average", "average"), [self.context.averages[line.key] for line in self.lines]
        _, cells = align_cells(column, averages, self.inputs.request.decimals)
        pairs = zip(self.lines, cells, strict=True)
        texts = [f"{line.title} {cell.text} %" for line, cell in pairs if cell.value is not None]
        over = (
            f"the mean over {len(self.by_dataset)} datasets"
            if len(self.by_dataset) > 1
            else next(iter(self.by_dataset))
        )
        return f"{self.context.metric_title} on {over}: {_listed(texts)}." if texts else ""

    def comparison(self) -> str:
        """What can be told apart from the row that others are compared with."""
        keys = {line.key: line for line in self.lines}
        base = keys.get(self.inputs.request.against or self.inputs.card.against)
        if base is None or len(keys) < 2:
            return ""
        by_verdict: dict[str, list[str]] = {}
        for line in self.lines:
            average = None if line is base else self.context.evidence.average(line.key, base.key)
            if average is not None:
                here = average.here
                bounds = (
                    ""
                    if here.low is None
                    else f" (95 % interval {100 * here.low:+.1f} to {100 * (here.high or 0):+.1f})"
                )
                by_verdict.setdefault(here.verdict, []).append(f"{line.title} {100 * here.effect:+.1f}{bounds}")
        texts = [f"{verdict}: {_listed(names)}" for verdict, names in by_verdict.items()]
        return f"Compared with {base.title}, in points: {'; '.join(texts)}." if texts else ""

    def memory(self) -> str:
        """What the training step takes."""
        sizes = [(line.title, line.memory(self.context.figure)) for line in self.lines]
        texts = [f"{title} {readable_size(size)}" for title, size in sizes if size is not None]
        sources = _listed(_unique(str(r.document["memory"]["source"]) for r in self.runs if r.document.get("memory")))
        return (
            f"Peak memory of a training step ({self.context.figure}, measured on {sources}): {_listed(texts)}."
            if texts
            else ""
        )

    def software(self) -> str:
        """Machines and versions."""
        environments = [run.document.get("environment") or {} for run in self.runs]
        packages = _unique(f"{n} {v}" for each in environments for n, v in (each.get("packages") or {}).items() if v)
        machines = _unique(_machine(each.get("hardware") or {}) for each in environments)
        versions = _unique(f"petlbench {each['petlbench']}" for each in environments if each.get("petlbench"))
        texts = [*versions, *packages]
        return f"Runs were made with {_listed(texts)} on {_listed(filter(None, machines))}." if texts else ""

    def calibration(self) -> str:
        """Whether probabilities were calibrated."""
        fits = [run.calibration["temperature"] for run in self.runs if run.calibration is not None]
        if not fits:
            return "Probabilities were not calibrated."
        return f"Temperatures, fitted on validation: {min(fits):.3g} to {max(fits):.3g} over {len(fits)} runs."

    def external(self) -> str:
        """Which other test sets the runs were scored on."""
        names = _unique(str(run.config.get("test_on") or "") for run in self.runs)
        texts = [name.rpartition("/")[2] for name in names if name]
        return f"External test sets: {_listed(texts)}." if texts else ""

    def _repeats(self) -> str:
        seeds, splits = ({getattr(run, name) for run in self.runs} for name in ("seed", "split"))
        return f"{_count(seeds, 'seed')} and {_count(splits, 'split')}"


def _count(items: Sized, noun: str) -> str:
    return _of(len(items), noun)


def _of(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _listed(texts: Iterable[str]) -> str:
    *first, last = [*texts] or [""]
    return f"{', '.join(first)} and {last}" if first else last


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _rate(run: Stored) -> str:
    return f"{run.value('training.lr'):g}"


def _scheme(run: Stored) -> str:
    scheme, _, index = str(run.config["split"]).partition("/")
    name, _, number = scheme.partition(":")
    words = {"official": "the official one", "random": "random", "kfold": f"{index or number}-fold cross-validation"}
    seed = f" (split seed {run.config['split_seed']})" if name != "official" else ""
    return words.get(name, scheme) + seed


def _machine(hardware: Any) -> str:
    gpus = [str(gpu.get("name", gpu) if isinstance(gpu, dict) else gpu) for gpu in hardware.get("gpus") or ()]
    return _listed(_unique(gpus)) if gpus else str(hardware.get("processor", ""))
