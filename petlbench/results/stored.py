"""Stored results and predictions as plain values, by the names that tables have for them and for datasets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path, PurePath
from typing import Any

from petlbench.core.config import part_name
from petlbench.core.user_files import inside
from petlbench.results.predictions import Predictions, read_predictions, read_rows
from petlbench.results.result import FILE, Origin, Result

ALIKE = (
    "shots",
    "train_fraction",
    "shots_val",
    "backbone",
    "weights",
    "image_size",
    "normalize",
    "device",
    "precision",
    "attention_kernel",
    "checkpointing",
    "compile",
    "training.epochs",
    "training.batch_size",
    "training.accumulate",
    "training.optimizer",
    "training.augment",
    "train_on",
    "training.select",
    "protocol",
)
"""What must agree in all rows of a table."""

FEWEST_TO_CHOOSE = 50
"""Images of a validation split below which chance alone can choose the epoch."""

GROUPS = {"training": "training", "method": "method_settings", "dataset": "dataset_settings"}
"""Groups of a config by the names that users give them."""

_COMPARED = ("status", "config", "data", "preprocessing", "digests", "environment", "parameters", "metrics", "memory")
ATTRIBUTE_COLUMNS = ("image_id", "name", "value")
"""The columns of what a run keeps of its dataset's tables."""
# What the time of a run is made of.
_RUN_PHASES = ("preload", "prepare", "compile", "train", "evaluate")
# What phases are called now that older results have under another name.
_PHASES_NOW = {"read": "data"}
_MEMORY = ("allocated", "reserved", "process")
_Numbers = dict[str, float | None]
# Runs of one cell differ in these: they are what its spread is over.
_REPEATS = ("seed", "split", "split_seed", "draw")


class Configuration:
    """What a config says beside what repeats differ in; runs that have one in common share what follows from it.

    Args:
        config: The config of one of the runs.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self._alike: dict[str, tuple[Any, ...]] = {}

    def alike(self, protocol: str) -> tuple[Any, ...]:
        """The values of `ALIKE` under a protocol."""
        if protocol not in self._alike:
            values = (protocol if key == "protocol" else config_value(self._config, key) for key in ALIKE)
            self._alike[protocol] = tuple(values)
        return self._alike[protocol]

    @cached_property
    def setting(self) -> dict[str, str]:
        """The config but for what repeats differ in (seed, draw, the split's index and seed), as texts by key."""
        setting = {"split": str(self._config["split"]).partition("/")[0]}
        groups = {fields: group for group, fields in GROUPS.items()}
        for key, value in self._config.items():
            if key in groups:
                setting |= {f"{groups[key]}.{name}": str(each) for name, each in value.items()}
            elif key not in _REPEATS:
                setting[key] = str(value)
        return setting


@dataclass(frozen=True)
class Stored:
    """One result, as plain values: thousands of them are read in seconds.

    Args:
        document: What ``result.json`` holds.
        folder: Where it lies; None where only a tracker has it.
        name: The dataset's name in the table; empty for the one that it has alone.
        temperature: What the logits of its predictions are divided by.
        configuration: That of its config, where runs share it; None for one of its own.
    """

    document: Mapping[str, Any]
    folder: Path | None = None
    name: str = ""
    temperature: float = 1.0
    configuration: Configuration | None = field(default=None, compare=False)

    @cached_property
    def run_id(self) -> str:
        """Name of the run."""
        return str(self.document["run_id"])

    @cached_property
    def status(self) -> str:
        """How the run ended."""
        return str(self.document["status"])

    @property
    def finished(self) -> bool:
        """Whether it ended well."""
        return self.status == "finished"

    @property
    def shows_test(self) -> bool:
        """Whether the test split was scored after every epoch: of such a run no other table may have a figure."""
        return bool(self.config.get("test_every_epoch"))

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The run's description."""
        config: Mapping[str, Any] = self.document["config"]
        return config

    @property
    def method(self) -> str:
        """Name of the method."""
        return str(self.config["method"])

    @cached_property
    def dataset(self) -> str:
        """Name of the dataset, as of `dataset_names`."""
        path = str(self.config["dataset"])
        return self.name or dataset_names([path])[path]

    @property
    def few_validation(self) -> int:
        """How many validation images the epoch was chosen on, where they are too few for that; else 0."""
        images = (self.document.get("data", {}).get("images") or {}).get("val") or 0
        if images >= FEWEST_TO_CHOOSE or self.value("training.select") == "last":
            return 0
        # Last, since curves are read from the results' own files.
        return int(images) if len(self.document.get("curve") or ()) > 1 else 0

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return int(self.config["seed"])

    @property
    def draw(self) -> int:
        """Which draw of few labels it is trained on."""
        return int(self.config.get("draw", 0))

    @property
    def part(self) -> str:
        """What it is trained on, where labels are few: ``5 shots`` or ``10 %``; empty for the whole training split."""
        return part_name(self.config.get("shots", 0), self.config.get("train_fraction", 1))

    @property
    def protocol(self) -> str:
        """The protocol that it is under, with what it has otherwise: ``published but image_size``; empty for none."""
        return Origin(**(self.document.get("origin") or {})).label

    @property
    def split(self) -> str:
        """The split with its seed where it is drawn."""
        split = str(self.config["split"])
        return split if split == "official" else f"{split}@{self.config['split_seed']}"

    def value(self, key: str) -> Any:
        """What the config has under a key, such as ``precision`` or ``training.lr``; None for nothing.

        The key ``protocol`` is the protocol that the run is under, with what it has otherwise; empty for none.
        """
        return self.protocol if key == "protocol" else config_value(self.config, key)

    @cached_property
    def alike(self) -> tuple[Any, ...]:
        """The values of `ALIKE`."""
        return self._configuration.alike(self.protocol)

    @property
    def setting(self) -> dict[str, str]:
        """The config but for what repeats differ in, as `Configuration` has it."""
        return self._configuration.setting

    @cached_property
    def _configuration(self) -> Configuration:
        return self.configuration or Configuration(self.config)

    @property
    def figures(self) -> dict[str, float]:
        """Every figure of the run that is a number, by name: ``test_auc``, ``memory_allocated``, ``seconds_run``, ….

        Scores and ratios are fractions, memory is bytes, time seconds.
        """
        numbers = [section(self.document).items() for section in dict.fromkeys(_SECTIONS.values())]
        return {name: float(value) for name, value in chain(*numbers) if value is not None}

    def figure(self, name: str) -> float | None:
        """One of the figures, for which no other part of the document is read; None where it has none of this name."""
        section = _SECTIONS.get(name.partition("_")[0], _of_scores)
        value = section(self.document).get(name)
        return None if value is None else float(value)

    def score(self, metric: str, split: str = "test") -> float | None:
        """A score, as a fraction; None where there is none."""
        value = self.document["metrics"].get(split, {}).get(metric)
        return None if value is None else float(value)

    def _artifact(self, kind: str) -> Path | None:
        name = self.document.get("artifacts", {}).get(kind)
        if self.folder is None or name is None:
            return None
        return inside(self.folder, name, what=f"artifacts.{kind} of {self.folder / FILE}")

    @property
    def predictions_file(self) -> Path | None:
        """Where its predictions lie, in its folder; None where it kept none."""
        return self._artifact("predictions")

    @cached_property
    def attributes(self) -> dict[str, dict[str, str]]:
        """What the dataset's table says of validation and test images: by column, the value of each image by its id.

        Raises:
            InputError: When the file is damaged.
        """
        file = self._artifact("attributes")
        table = None if file is None else read_rows(file, ATTRIBUTE_COLUMNS)
        columns: dict[str, dict[str, str]] = {}
        if table is not None:
            for image, name, value in zip(*(table[key].to_pylist() for key in ATTRIBUTE_COLUMNS), strict=True):
                columns.setdefault(str(name), {})[str(image)] = str(value)
        return columns

    def predictions(self, split: str) -> Predictions | None:
        """The predictions on a split, read anew; None where it kept none."""
        predictions = None if self.predictions_file is None else read_predictions(self.predictions_file, split)
        return None if predictions is None else predictions.at(self.temperature)

    @property
    def calibration(self) -> Mapping[str, Any] | None:
        """What makes its probabilities true, as ``result.json`` has it; None where nothing was fitted."""
        return self.document.get("calibration")

    def calibrated(self) -> Stored:
        """The same result with its predictions at the temperature that it has fitted, if it has."""
        return self if self.calibration is None else replace(self, temperature=self.calibration["temperature"])

    def memory(self, figure: str, phase: str | None = None) -> int | None:
        """A figure of memory in bytes: of the training step, or of another phase."""
        memory = self.document.get("memory") or {}
        figures = memory.get("phases", {}).get(phase, {}) if phase is not None else memory
        value = figures.get(figure)
        return None if value is None else int(value)

    def seconds(self, name: str) -> float:
        """Seconds of a phase, or of the ``run``: preloading, preparing, training, evaluating; 0 where it has none."""
        return self.figure(f"seconds_{name}") or 0.0


def config_value(config: Mapping[str, Any], key: str) -> Any:
    """What a config has under a key, such as ``precision`` or ``training.lr``; None for nothing."""
    group, dot, name = key.partition(".")
    return config.get(GROUPS.get(group, ""), {}).get(name) if dot else config.get(key)


def flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """What nested mappings hold, by their keys joined by dots."""
    leaves: dict[str, Any] = {}
    for name, value in values.items():
        leaves |= flat(value, f"{path}{name}.") if isinstance(value, Mapping) else {f"{path}{name}": value}
    return leaves


def compare_results(first: Result, second: Result) -> dict[str, tuple[Any, Any]]:
    """In what two results differ: what they are runs of, what they depend on, where they ran, and what came out.

    Returns:
        The two values, None where one is absent, by their place in ``result.json`` with dots between the levels.
    """
    documents = [result.document() for result in (first, second)]
    left, right = (flat({name: document[name] for name in _COMPARED}) for document in documents)
    pairs = {name: (left.get(name), right.get(name)) for name in [*left, *right]}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def final_metrics(result: Result) -> dict[str, float]:
    """The figures of a result that a tracker shows beside the curves."""
    figures = Stored(result.document()).figures
    # The curve owns the names val_…; the best epoch's figures must not become another point of it.
    return {f"best_{name}" if name.startswith("val_") else name: value for name, value in figures.items()}


def _of_scores(document: Mapping[str, Any]) -> _Numbers:
    figures: _Numbers = {}
    for split, metrics in document["metrics"].items():
        figures |= {f"{split}_{name}": value for name, value in metrics.items() if isinstance(value, float)}
    for split, metrics in document.get("metrics_by_group", {}).items():
        figures |= {f"{split}_{name}_by_group": value for name, value in metrics.items() if isinstance(value, float)}
    return figures


def _of_parameters(document: Mapping[str, Any]) -> _Numbers:
    parameters = document.get("parameters") or {}
    names = {"learnable_parameters": "learnable", "learnable_ratio": "ratio"}
    return {figure: parameters.get(name) for figure, name in names.items()}


def _of_memory(document: Mapping[str, Any]) -> _Numbers:
    memory = document.get("memory") or {}
    return {f"memory_{name}": memory.get(name) for name in _MEMORY}


def _of_inference(document: Mapping[str, Any]) -> _Numbers:
    inference = document.get("inference") or {}
    memory = inference.get("memory") or {}
    figures = {f"inference_{name}": inference.get(name) for name in ("latency", "images_per_second")}
    return figures | {f"inference_memory_{name}": memory.get(name) for name in _MEMORY}


def _of_efficiency(document: Mapping[str, Any]) -> _Numbers:
    scores = document["scores"]
    return {name: scores.get(name) for name in ("ppe", "pme")}


def _of_timing(document: Mapping[str, Any]) -> _Numbers:
    timing = {_PHASES_NOW.get(name, name): value for name, value in document["timing"].items()}
    # Without what a run waits for others: imports, the first reading of its data, a tracking store.
    whole = sum(timing.get(name, 0.0) for name in _RUN_PHASES) if "train" in timing else timing.get("total")
    return {f"seconds_{name}": value for name, value in timing.items()} | {"seconds_run": whole}


# Where figures are from, by the beginning of their names; those of scores begin with their split.
_SECTIONS: Mapping[str, Callable[[Mapping[str, Any]], _Numbers]] = {
    "": _of_scores,
    "learnable": _of_parameters,
    "memory": _of_memory,
    "inference": _of_inference,
    "ppe": _of_efficiency,
    "pme": _of_efficiency,
    "seconds": _of_timing,
}


def dataset_names(datasets: Iterable[str]) -> dict[str, str]:
    """Names of the datasets of one table: the catalogue's, or that of the folder or file without its ending.

    Datasets that would be called alike have the names of their folders in front, so many of them as tell them apart:
    ``a/images`` and ``b/images``. A path that is the end of another one means the same dataset.
    """
    alike: dict[str, dict[str, tuple[str, ...]]] = {}
    for dataset in datasets:
        short = dataset.rstrip("/").rpartition("/")[2].partition(".")[0] or dataset
        alike.setdefault(short, {})[dataset] = _folders(dataset)
    return {dataset: name for short, members in alike.items() for dataset, name in _apart(short, members).items()}


def names_with(studies: Iterable[Mapping[str, Any]], datasets: Iterable[str]) -> dict[str, str]:
    """Names of datasets and of those that studies plan, as of `dataset_names`."""
    planned = [study.get("datasets", []) + [run["dataset"] for run in study.get("runs", [])] for study in studies]
    return dataset_names(chain(datasets, *planned))


def _apart(short: str, members: dict[str, tuple[str, ...]]) -> dict[str, str]:
    whole = {
        folders: max((other for other in members.values() if _ends_with(other, folders)), key=len)
        for folders in members.values()
    }
    distinct = set(whole.values())
    names = {}
    for dataset, folders in members.items():
        path, depth = whole[folders], 0
        while any(other != path and _ends_with(other, path[len(path) - depth :]) for other in distinct):
            depth += 1
        names[dataset] = "/".join([*path[len(path) - depth :], short])
    return names


def _ends_with(folders: tuple[str, ...], end: tuple[str, ...]) -> bool:
    return folders[len(folders) - len(end) :] == end if len(end) <= len(folders) else False


def _folders(dataset: str) -> tuple[str, ...]:
    # An absolute path begins with an empty part, so that it is the end of no other.
    return tuple(part.strip("/") for part in PurePath(dataset).parts[:-1] if part not in (".", "..", "~"))
