"""What methods learn on every backbone card, and what that takes: predicted, or refused by name."""

from __future__ import annotations

import pytest

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.study.forecast.backbones import predict_backbones

METHODS = ("linear", "lora", "fpt")


def test_a_method_that_is_not_there_is_refused_at_once() -> None:
    with pytest.raises(InputError):
        next(predict_backbones(Catalog(), ["lora", "lorra"], 2, {}))


@pytest.mark.slow
def test_every_card_is_predicted_or_refused_by_name() -> None:
    answers = list(predict_backbones(Catalog(), METHODS, 2, {}))
    assert len(answers) >= 60
    for entry, row in answers:
        assert [answer.method for answer in row] == list(METHODS)
        assert row[0].reason is None, entry.name  # a head is learned on anything
        for answer in row:
            if answer.reason is not None:
                assert entry.name in answer.reason
                assert (answer.parameters, answer.memory) == (None, None)
                continue
            assert answer.parameters is not None
            assert answer.memory is not None
            assert 0 < answer.parameters.learnable < answer.parameters.total
            assert answer.memory.source == "predicted"
            assert answer.memory.allocated > 0
