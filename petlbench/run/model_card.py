"""The card of an exported model: what it is, what it was trained and tested on, how good it was, what is not known.

Its sections are those of M. Mitchell et al., Model cards for model reporting (FAT* 2019); its head is read by hubs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from petlbench.core.catalog import Catalog
from petlbench.core.text import printable
from petlbench.core.units import MISSING, number, percent, readable_size
from petlbench.results.result import Result

_AUTHOR = "*To be filled in by the author.*"
_SPLITS = {"train": "training", "val": "validation", "test": "test"}
_TIMM = """```python
import json

import {module}
from safetensors import safe_open
from safetensors.torch import load_file

with safe_open("model.safetensors", "pt") as opened:
    about = opened.metadata()
model = timm.create_model(
    about["architecture"],
    num_classes=len(json.loads(about["labels"])),
    img_size=int(about["image_size"]),
    **json.loads(about.get("arguments", "{{}}")),
)
model.load_state_dict(load_file("model.safetensors"))
```"""
_ONNX = """```python
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
print([(each.name, each.shape) for each in session.get_inputs()])
```"""


def model_card(result: Result, description: Mapping[str, Any], catalog: Catalog) -> str:
    """The card of a run's exported files, in Markdown, with what hubs read on top.

    Args:
        result: The run's.
        description: What ``preprocessing.json`` says.
        catalog: The catalogues, whose titles it uses.
    """
    methods, datasets = catalog.entries("method"), catalog.entries("dataset")
    method, dataset = result.config.method, result.config.dataset
    title = methods[method].title if method in methods else method
    card = datasets[dataset].card if dataset in datasets else {}
    parts = [
        _head(result, method),
        f"# {_plain(title)} on {_plain(str(result.data.get('title') or 'a dataset'))}",
        _details(result, title, description),
        _use(description),
        _data(result, card),
        _scores(result, catalog),
        _limits(result),
        _training(result),
    ]
    return "\n\n".join(parts) + "\n"


def _head(result: Result, method: str) -> str:
    values = {"pipeline_tag": "image-classification", "tags": ["petlbench", method, "medical-imaging"]}
    lines = [f"{name}: {json.dumps(value)}" for name, value in values.items()]
    return "\n".join(["---", *lines, f"base_model: {json.dumps(result.config.backbone)}", "---"])


def _details(result: Result, title: str, description: Mapping[str, Any]) -> str:
    parameters = result.parameters
    learned = "" if parameters is None else f", {parameters.learnable:,} of {parameters.total:,} parameters learned"
    merged = "folded into the backbone" if description["merged"] else "beside the backbone"
    labels = ", ".join(f"{_plain(str(name))}" for name in description["labels"])
    rows = [
        f"- **Backbone:** {_plain(result.config.backbone)}, adapted by {_plain(title)} ({merged}{learned})",
        f"- **Task:** {_plain(str(description['task']))}; outputs: {labels}",
        f"- **Run:** `{result.run_id}`, petlbench {description['petlbench']}",
        f"- **Calibration:** logits are divided by {description['temperature']:.3g} in the files"
        if description["temperature"] != 1
        else "- **Calibration:** none was fitted: outputs are no probabilities that were checked",
        f"- **Licence, contact:** {_AUTHOR} The backbone's licence and the dataset's hold, too.",
    ]
    return "\n".join(["## Model", "", *rows])


def _use(description: Mapping[str, Any]) -> str:
    lines = [
        "## Use",
        "",
        "For research on images like those it was trained on. Not a medical device and not a diagnosis: nothing here "
        "was validated for the care of patients.",
        "",
        f"Intended users and situations: {_AUTHOR}",
        "",
        f"Images: {description['image']}. `preprocessing.json` says how they are resized and normalised.",
    ]
    if description["merged"]:
        lines += ["", _TIMM.format(module=_module(description["timm_model"]["name"]))]
    return "\n".join([*lines, *(["", _ONNX] if description["opset"] is not None else [])])


def _module(architecture: str) -> str:
    """What is imported so that timm knows an architecture: timm itself, and what brings others to it."""
    import timm

    module = timm.model_entrypoint(architecture.partition(".")[0]).__module__
    return "timm" if module.startswith("timm.") else f"{module}  # brings the architecture to timm\nimport timm"


def _data(result: Result, card: Mapping[str, Any]) -> str:
    data = result.data
    by_class = data.get("images_by_class") or {}
    names = [str(name) for name in data.get("classes") or ()]
    lines = ["| split | images | groups |", "| --- | --: | --: |"]
    for split, count in (data.get("images") or {}).items():
        groups = (data.get("groups") or {}).get(split)
        lines.append(f"| {_SPLITS.get(split, split)} | {count:,} | {MISSING if groups is None else f'{groups:,}'} |")
    counts = [f"{_plain(name)} {(by_class.get('train') or {}).get(name, 0):,}" for name in names]
    facts = [
        f"- **Dataset:** {_plain(str(data.get('title')))}" + (", synthetic" if data.get("synthetic") else ""),
        f"- **Licence of its images:** {_plain(str(card.get('licence', 'not known')))}",
        f"- **Split:** {result.config.split}; images of one group stand on one side where groups are known",
        f"- **Training images by class:** {'; '.join(counts) or 'not counted'}",
    ]
    notes = [f"- {_plain(str(note))}" for note in data.get("notes") or ()]
    return "\n".join(["## Data", "", *facts, *notes, "", *lines])


def _scores(result: Result, catalog: Catalog) -> str:
    rows = catalog.entries("metric")
    lines = ["| score | test | 95 % interval | validation |", "| --- | --: | --: | --: |"]
    test, validation = (result.metrics.get(split, {}) for split in ("test", "val"))
    for name, entry in rows.items():
        if name in test or name in validation:
            interval = (result.intervals.get("test") or {}).get(name)
            is_fraction = entry.card.get("unit", "%") == "%"
            values = [
                test.get(name),
                validation.get(name),
                *(None if interval is None else interval[end] for end in ("low", "high")),
            ]
            texts = [percent(value) if is_fraction else number(value, 4) for value in values]
            bounds = MISSING if interval is None else f"{texts[2]} to {texts[3]}"
            lines.append(f"| {entry.title}{', %' if is_fraction else ''} | {texts[0]} | {bounds} | {texts[1]} |")
    note = "Of one run. The epoch was chosen on validation; the test split was read once. Another seed gives others."
    cost = []
    if result.inference is not None and result.inference.latency is not None:
        where = result.config.device
        cost = ["", f"One image alone takes {1000 * result.inference.latency:.1f} ms on the {where} that trained it."]
    if result.memory is not None and result.memory.allocated is not None:
        source = result.memory.source
        cost += ["", f"A training step took {readable_size(result.memory.allocated)} of tensors (measured: {source})."]
    return "\n".join(["## Scores", "", *lines, "", note, *cost])


def _limits(result: Result) -> str:
    lines = list(_warnings(result)) or ["Nothing in the run's result stands out; that is no proof of anything."]
    more = f"Subgroups (age, sex, site), other hospitals and devices: not examined here. {_AUTHOR}"
    return "\n".join(["## Limits", "", *(f"- {line}" for line in lines), f"- {more}"])


def _warnings(result: Result) -> Iterator[str]:
    few = [name for name, each in (result.intervals.get("test") or {}).items() if each is not None and each.get("few")]
    if few:
        yield "The rarest class has fewer than ten test images (or patients): intervals are hints only."
    absent = result.metrics.get("test", {}).get("classes_absent") or ()
    if absent:
        names = [_plain(str(result.data["classes"][index])) for index in absent]
        yield f"No test image of {', '.join(names)}: scores are of the other classes."
    if all(value is None for value in (result.data.get("groups") or {"": None}).values()):
        yield "Groups (patients) are not known: images of one patient may stand on two sides of the split."
    if result.calibration is None:
        yield "Probabilities were not calibrated."


def _training(result: Result) -> str:
    training = result.config.training
    preprocessing = [f"- **Images, {name}:** {_plain(text)}" for name, text in result.preprocessing.items()]
    rows = [
        f"- Epochs: {training.epochs} (epoch {result.best_epoch} was kept), batch size {training.batch_size}, "
        f"{training.optimizer}, learning rate {training.lr:g}, weight decay {training.weight_decay:g}, "
        f"{training.schedule} schedule, seed {result.config.seed}, {result.config.precision}",
        *preprocessing,
    ]
    packages = (result.environment.get("packages") or {}).items()
    versions = ", ".join(f"{name} {version}" for name, version in packages if version)
    return "\n".join(["## Training", "", *rows, f"- {versions}"])


def _plain(text: str) -> str:
    """A text of somebody else's on one line, none of whose characters is Markdown."""
    return "".join(f"\\{char}" if char in "`*_[]<>|#\\" else char for char in printable(" ".join(text.split())))
