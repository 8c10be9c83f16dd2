"""Packed documents: what is packed comes out as it was, and what many have in common is there once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from petlbench.results.documents import KEYS, PackedDocument, SharedTexts, pack
from petlbench.results.stored import Stored
from tests.results.tracking.results import make

HOSTILE = 'a:5,[6] %s %(x)s 100% "7" \\ 8]\n9 \u2028'
MEASURED: dict[str, Any] = {
    "text": HOSTILE,
    HOSTILE: [1, -2, 0.1, 1e-300, 1e22, -0.0, 2**70, True, None, [], {}, ["3"]],
    "nested": {"level": 0.95, "few": False, "counts": [[1, 2], [3, 4]]},
}


def packed(*documents: dict[str, Any]) -> tuple[list[PackedDocument], dict[str, int]]:
    """The documents, packed and opened again, and the texts that were kept."""
    numbers: dict[str, int] = {}
    contents = [pack(each, lambda text: numbers.setdefault(text, len(numbers))) for each in documents]
    shared = SharedTexts({number: text for text, number in numbers.items()})
    return [PackedDocument(content, Path("nowhere"), shared) for content in contents], numbers


@pytest.mark.parametrize("key", [key for key in KEYS if key not in {"curve", "calibration", "run_id"}])
@pytest.mark.parametrize("value", [{}, {"a": HOSTILE}, MEASURED])
def test_what_is_packed_comes_out_as_it_was(key: str, value: dict[str, Any]) -> None:
    document = make("full").document() | {"curve": [], "calibration": None, key: value}
    [opened], _ = packed(document)
    assert dict(opened) == document
    assert repr(opened[key]) == repr(value)


def test_parts_of_several_documents_may_be_read_by_turns() -> None:
    first, second = (make("lora", seed=seed).document() | {"curve": []} for seed in (1, 2))
    (one, other), _ = packed(first, second)
    for key in KEYS:
        assert (one[key], other[key], one[key]) == (first[key], second[key], first[key])
    with pytest.raises(KeyError):
        one["nothing"]


def test_repeats_add_no_text() -> None:
    documents = [make("lora", seed=seed).document() | {"curve": []} for seed in range(3)]
    _, texts = packed(documents[0])
    opened, of_all = packed(*documents)
    assert of_all == texts
    assert all(each.common_config is opened[0].common_config for each in opened)


def test_a_figure_is_that_of_all_figures() -> None:
    run = Stored(make("full").document())
    assert {name: run.figure(name) for name in run.figures} == run.figures
    assert len(run.figures) > 5
    assert run.figure("seconds_nothing") is None
    assert run.figure("nothing") is None
