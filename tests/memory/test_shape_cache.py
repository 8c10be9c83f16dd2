"""Remembered shapes: what comes out is what would have come out, and what may not be remembered is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from petlbench.core.catalog import Catalog
from petlbench.core.request import Request
from petlbench.memory.predict import predict_training
from petlbench.memory.shape_cache import RememberedShapes
from petlbench.models.build import assemble
from petlbench.models.method import configured_method
from petlbench.run.resolve import resolve

META = torch.device("meta")


class Asked(TorchDispatchMode):
    """Counts the operations that reach device ``meta``."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func._schema.name)
        return func(*args, **(kwargs or {}))


def described(tensor: Tensor) -> tuple[Any, ...]:
    return (tensor.shape, tensor.stride(), tensor.dtype, tensor.device, tensor.untyped_storage().nbytes())


def twice(operation: Callable[[], Any]) -> tuple[Any, Any, list[str]]:
    """Run an operation two times, and name what was asked of ``meta`` the second time."""
    with Asked() as computed, RememberedShapes():
        first = operation()
        computed.names.clear()
        second = operation()
        return first, second, list(computed.names)


def test_an_operation_is_asked_once() -> None:
    matrix = torch.empty(3, 4, device=META).t()
    first, second, computed = twice(lambda: matrix + 1)
    assert "aten::add" not in computed
    assert described(first) == described(second)
    assert first.untyped_storage() is not second.untyped_storage()


def test_another_shape_order_type_or_kind_of_number_is_another_question() -> None:
    matrix = torch.empty(4, 4, device=META, dtype=torch.int64)
    with RememberedShapes():
        assert (matrix + 1).dtype == torch.int64
        assert (matrix + 1.0).dtype == torch.float32
        assert (matrix.t() + 1).stride() == (1, 4)
        assert (matrix[:2] + 1).shape == (2, 4)
        assert (matrix.to(torch.float16) + 1).dtype == torch.float16


def test_an_output_that_was_not_wanted_stays_away() -> None:
    image, weight = torch.empty(2, 5, 4, device=META), torch.empty(4, device=META)

    def backward() -> Any:
        mean = torch.empty(2, 5, 1, device=META)
        return torch.ops.aten.native_layer_norm_backward(
            image, image, [4], mean, mean, weight, weight, [True, False, False]
        )

    first, second, computed = twice(backward)
    assert "aten::native_layer_norm_backward" not in computed
    assert first[1:] == second[1:] == (None, None)
    assert described(first[0]) == described(second[0])


@pytest.mark.parametrize("name", ["view", "_unsafe_view"])
def test_what_shares_a_storage_goes_on_sharing_it(name: str) -> None:
    matrix = torch.empty(3, 4, device=META)
    operation = getattr(torch.ops.aten, name)
    for result in twice(lambda: operation(matrix, [12]))[:2]:
        assert result.untyped_storage() is matrix.untyped_storage()


def test_a_change_in_place_gives_the_tensor_back() -> None:
    matrix = torch.empty(3, 4, device=META)
    first, second, computed = twice(lambda: matrix.mul_(2))
    assert first is second is matrix
    assert computed == []


def test_an_optimizers_update_is_not_asked_for_shapes_and_done_where_there_are_values() -> None:
    steps, moments = [torch.zeros(())], [torch.empty(3, device=META)]
    with Asked() as computed, RememberedShapes():
        for number in (1.0, 2.0):
            torch._foreach_add_(moments, number)
            torch._foreach_add_(steps, number)
    assert computed.names == ["aten::_foreach_add_"] * 2
    assert steps[0] == 3


def test_a_change_of_size_in_place_is_done() -> None:
    first, second = torch.empty(2, device=META), torch.empty(2, device=META)
    with RememberedShapes():
        first.resize_(8)
        second.resize_(8)
    assert second.shape == (8,)
    assert second.untyped_storage().nbytes() == 32


def test_what_lies_on_another_device_is_computed() -> None:
    count = torch.zeros(())
    with RememberedShapes():
        for _ in range(3):
            count += 1
        assert torch.ones(2).sum() == torch.ones(2).sum() == 2
    assert count == 3


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("lora", {"precision": "fp16", "attention_kernel": "eager"}),
        ("fpt", {"precision": "bf16"}),
        ("full", {"checkpointing": True}),
        ("gps", {"device": "cpu"}),
        ("fact_tt", {"training": {"accumulate": 2, "optimizer": "sgd"}}),
    ],
)
def test_a_prediction_is_the_same_to_the_byte(method: str, more: dict[str, Any]) -> None:
    catalog = Catalog()
    request = Request(method=method, **{"backbone": "petlbench_micro", "image_size": 64, "device": "cuda", **more})
    config = resolve(request, catalog, data_root=None).config  # type: ignore[arg-type]  # there is no dataset
    plain = predict_training(config, assemble(config, configured_method(config, catalog), 3, META))
    shapes = RememberedShapes()
    for _ in range(2):
        with shapes:
            assert predict_training(config, assemble(config, configured_method(config, catalog), 3, META)) == plain
