"""The card beside an exported model: every figure is the result's, and foreign text stays text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from petlbench.core.catalog import Catalog
from petlbench.results.result import read_result
from petlbench.run.model_card import model_card
from tests.report.stored import store_predicted

DESCRIPTION: dict[str, Any] = {
    "merged": True,
    "labels": ["no", "<b>yes</b>"],
    "task": "multiclass",
    "petlbench": "0.1.0",
    "temperature": 1,
    "opset": 18,
    "image": "RGB",
    "timm_model": {"name": "vit_tiny_patch16_224", "arguments": {}},
}


def test_figures_are_those_of_the_result_and_markup_stays_text(tmp_path: Path) -> None:
    run = store_predicted(tmp_path, "lora", "digits", 0, 2.0, title="<script>Eyes</script>\n# evil")
    result = read_result(tmp_path / run.run_id)
    card = model_card(result, DESCRIPTION, Catalog())
    interval = result.intervals["test"]["auc"]
    assert interval is not None
    low, high, test = (
        f"{100 * value:.2f}" for value in (interval["low"], interval["high"], result.metrics["test"]["auc"])
    )
    assert f"| AUC, % | {test} | {low} to {high} |" in card
    assert "import timm\n" in card
    assert "LoRA on \\<script\\>Eyes\\</script\\> \\# evil" in card
    assert "\\<b\\>yes" in card
    assert "Not a medical device" in card


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    run = store_predicted(tmp_path, "lora", "digits", 0, 2.0)
    text = model_card(read_result(tmp_path / run.run_id), DESCRIPTION, Catalog())
    for words in ("Groups (patients) are not known", "not calibrated", "To be filled in by the author"):
        assert words in text
