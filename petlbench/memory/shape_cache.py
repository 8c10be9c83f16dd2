"""Device ``meta`` made quicker: what an operation returns for tensors of some shapes is computed once."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from petlbench.memory.live_tensors import tensors_in

_META = torch.device("meta")
_PLAIN = (Tensor, nn.Parameter)

_UNKNOWN: Any = object()  # stands for an answer that was not computed yet

_Answer = Callable[[Any], Any]


class RememberedShapes(TorchDispatchMode):  # type: ignore[no-untyped-call, unused-ignore]
    """Remembers what operations return on device ``meta``, and makes it without asking them again.

    Torch works out in Python which shape comes from adding two tensors, in up to a millisecond, and a transformer asks
    the same of every block, and every method the same as the one before. Tensors and their storages come out as they
    would otherwise; views and what lies on other devices pass through. Modes that are entered later see every operation
    as before, so that what they count stays the same.

    Example:
        >>> image = torch.empty(2, 3, device="meta")
        >>> with RememberedShapes():
        ...     first, second = image + 1, image + 1
        >>> second.shape
        torch.Size([2, 3])
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self._answers: dict[Any, _Answer | None] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Torch would wrap the method below against being compiled, which nothing here is; each call would pay for it.
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The result of one operation: computed, or made from what it returned before."""
        kwargs = kwargs or {}
        kind = _kind(func)
        if kind is _Kind.PASSED:
            return func(*args, **kwargs)
        try:
            key = (func, _described(args), _described(kwargs))
            answer = self._answers.get(key, _UNKNOWN)
        except TypeError:  # something on another device, or that cannot be a key
            return func(*args, **kwargs)
        if kind is _Kind.MANY_IN_PLACE:
            return None
        if answer is _UNKNOWN:
            result = func(*args, **kwargs)
            # An operation that changed the description of its own input is not the same one when it comes again.
            unchanged = key[1] == _described(args)
            self._answers[key] = _answer(func, args, result) if unchanged else None
            return result
        return answer(args) if answer is not None else func(*args, **kwargs)


@cache
def shared_shapes() -> RememberedShapes:
    """What this process has learned of shapes; methods have most of them in common."""
    return RememberedShapes()


class _Kind(Enum):
    PASSED = auto()
    COMPUTED_ONCE = auto()
    # An optimiser's update of all its tensors: nothing comes out, and there are no values that could change. To run it
    # would work out the shape of each tensor, and its numbers are others in each step.
    MANY_IN_PLACE = auto()


@cache
def _kind(func: Any) -> _Kind:
    if func.is_view or torch.Tag.inplace_view in func.tags or func.namespace != "aten":
        return _Kind.PASSED
    is_of_many = func._schema.name.startswith(("aten::_foreach_", "aten::_fused_"))
    if is_of_many and func._schema.is_mutable and not func._schema.returns:
        return _Kind.MANY_IN_PLACE
    return _Kind.COMPUTED_ONCE


def _described(value: Any) -> Any:
    """All of an argument that can decide what comes out, as a key.

    Raises:
        TypeError: When there is a tensor of another kind or on another device.
    """
    kind = type(value)
    if kind in _PLAIN:
        if value.device != _META:
            raise TypeError
        return (value.shape, value.stride(), value.dtype)
    if kind is tuple or kind is list:
        return (kind, *map(_described, value))
    if kind is dict:
        return tuple((name, _described(item)) for name, item in value.items())
    if isinstance(value, Tensor):
        raise TypeError
    # 1, 1.0 and True are equal, and are three things to an operation.
    return (kind, value)


def _answer(func: Any, args: Any, result: Any) -> _Answer | None:
    """How to make an operation's result anew; None where it has to be computed each time."""
    if func._schema.is_mutable:  # there are no values on meta that could change
        if result is None:
            return lambda _: None
        return (lambda arguments: arguments[0]) if args and result is args[0] else None
    outputs = result if type(result) in {list, tuple} else (result,)
    if not outputs or not _are_new(outputs, args):
        return None
    makers = [_maker(output) for output in outputs]
    if result is outputs[0]:
        return lambda _: makers[0]()
    container = type(result)
    return lambda _: container(make() for make in makers)


def _maker(output: Tensor | None) -> Callable[[], Tensor | None]:
    if output is None:
        return lambda: None
    size, strides, dtype = output.shape, output.stride(), output.dtype
    return lambda: torch.empty_strided(size, strides, dtype=dtype, device=_META)


def _are_new(outputs: Any, args: Any) -> bool:
    """Whether all outputs are tensors on ``meta`` in storages of their own, with nothing before or behind them.

    A gradient that is not needed is None.
    """
    storages = {id(tensor.untyped_storage()) for tensor in tensors_in(args)}
    for output in outputs:
        if output is None:
            continue
        if type(output) is not Tensor or output.device != _META or output.storage_offset():
            return False
        storage = output.untyped_storage()
        again = torch.empty_strided(output.shape, output.stride(), dtype=output.dtype, device=_META)
        if id(storage) in storages or storage.nbytes() != again.untyped_storage().nbytes():
            return False
        storages.add(id(storage))
    return True
