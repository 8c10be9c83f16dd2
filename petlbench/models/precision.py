"""Mixed precision: torch's own on a device, and the same rules applied to tensors of device ``meta``.

``torch.autocast`` leaves ``meta`` tensors alone, so a prediction would see no cast. Torch casts at a dispatch key of
the device that stands above autograd; here the rules are laid on such a key that no device of ours uses, and the key
is switched on while a step runs on ``meta``. Which operations are cast is asked of the installed torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

meta_stands_for: ContextVar[str] = ContextVar("meta_stands_for", default="cuda")
"""The type of device whose rules hold for tensors of device ``meta``: ``cuda`` or ``cpu``."""

# Torch's documentation of autocast sorts the operations: computed in the lower type, in the widest type among the
# arguments, or with a result in float32. All others that a device lists compute in float32.
LOWER = frozenset(
    """
    _addmm_activation _convolution _convolution.deprecated _cudnn_rnn _native_multi_head_attention
    _scaled_dot_product_flash_attention _thnn_fused_gru_cell _thnn_fused_lstm_cell addbmm addmm addmv addr baddbmm bmm
    chain_matmul conv1d conv1d.padding conv2d conv2d.padding conv3d conv3d.padding conv_tbc conv_transpose1d
    conv_transpose2d.input conv_transpose3d.input convolution cudnn_convolution cudnn_convolution_transpose einsum
    gru_cell linalg_multi_dot linalg_vecdot linear lstm_cell matmul mkldnn_rnn_layer mm mv prelu rnn_relu_cell
    rnn_tanh_cell scaled_dot_product_attention
    """.split()  # noqa: SIM905
)
PROMOTED = frozenset(
    """
    addcdiv addcmul atan2 bilinear cat cross dot grid_sampler index_copy index_put scatter_add stack tensordot vdot
    """.split()  # noqa: SIM905
)
SET_TYPE = frozenset(
    """
    cumprod cumsum linalg_matrix_norm linalg_matrix_norm.str_ord linalg_vector_norm log_softmax.int prod prod.dim_int
    softmax.int sum sum.dim_IntList
    """.split()  # noqa: SIM905
)

# The key and the registrations on it; a library takes its kernels along when it is collected.
_KEY_NAME = "AutocastHPU"
_KEY = getattr(torch._C.DispatchKey, _KEY_NAME)  # torch's own type stubs leave it out
_KEYS = torch._C.DispatchKeySet(_KEY)


class _Rules:
    """What is in force while the key is on: the lower type, and the casts of learnable tensors made so far."""

    def __init__(self, dtype: torch.dtype, device: str) -> None:
        self.dtype = dtype
        self.device = device
        self.listed = _listed(device)
        self.casts: dict[int, tuple[Tensor, Tensor]] = {}

    def lowered(self, tensor: Tensor) -> Tensor:
        """Cast to the lower type; a learnable tensor is cast once, as torch does."""
        if tensor.dtype == self.dtype:
            return tensor
        cached = tensor.dtype == torch.float32 and tensor.requires_grad and tensor.is_leaf and not tensor._is_view()
        if not cached:
            return tensor.to(self.dtype)
        if id(tensor) not in self.casts:
            self.casts[id(tensor)] = (tensor, tensor.to(self.dtype))
        return self.casts[id(tensor)][1]


_rules: ContextVar[_Rules | None] = ContextVar("_rules", default=None)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The context of a forward pass in ``fp32``, ``bf16`` or ``fp16``; on ``meta`` as `meta_stands_for` says."""
    if precision == "fp32":
        return nullcontext() if autocast_type(device.type) is None else _without(device)
    if device.type == "meta":
        return _emulated(_TYPES[precision])
    return torch.autocast(device.type, dtype=_TYPES[precision])


def autocast_type(device: str = "meta") -> torch.dtype | None:
    """The lower type in force on a type of device, or None."""
    if device != "meta":
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    rules = _rules.get()
    return rules.dtype if rules is not None else None


@contextmanager
def _without(device: torch.device) -> Iterator[None]:
    """The context in which what is under autocast is not."""
    if device.type != "meta":
        with torch.autocast(device.type, enabled=False):
            yield
        return
    token = _rules.set(None)
    try:
        yield
    finally:
        _rules.reset(token)


@contextmanager
def _emulated(dtype: torch.dtype) -> Iterator[None]:
    _register()
    token = _rules.set(_Rules(dtype, meta_stands_for.get()))
    was_off = torch._C._dispatch_tls_is_dispatch_key_excluded(_KEY)
    torch._C._dispatch_tls_set_dispatch_key_excluded(_KEY, False)
    try:
        with torch._C._IncludeDispatchKeyGuard(_KEY):
            yield
    finally:
        torch._C._dispatch_tls_set_dispatch_key_excluded(_KEY, was_off)
        _rules.reset(token)


@cache
def _listed(device: str) -> frozenset[str]:
    """The operations that autocast has a rule for on a device."""
    key = {"cuda": "AutocastCUDA", "cpu": "AutocastCPU"}[device]
    names = torch._C._dispatch_get_all_op_names()
    rules = (name for name in names if torch._C._dispatch_has_kernel_for_dispatch_key(name, key))
    return frozenset(name.removeprefix("aten::") for name in rules if name.startswith("aten::"))


@cache
def _register() -> tuple[torch.library.Library, ...]:
    """Lay the rules on the key, once; operations without a rule pass through it."""
    new: Any = torch.library.Library  # it has no type annotations
    others = new("_", "IMPL")
    others.fallback(torch.library.fallthrough_kernel, _KEY_NAME)
    library = new("aten", "IMPL")
    for name in sorted(_listed("cuda") | _listed("cpu")):
        base, _, overload = name.partition(".")
        operation = getattr(getattr(torch.ops.aten, base), overload or "default")
        library.impl(name, _kernel(name, operation), _KEY_NAME, with_keyset=True)
    return others, library


def _kernel(name: str, operation: Any) -> Callable[..., Any]:
    """The function that applies an operation's rule and goes on below the key."""

    def call(keys: Any, *args: Any, **kwargs: Any) -> Any:
        rules = _rules.get()
        if rules is None or name not in rules.listed:
            # The other device's rule: what the operation calls itself may have one here.
            return operation.redispatch(keys.remove(_KEY), *args, **kwargs)
        with torch._C._ExcludeDispatchKeyGuard(_KEYS):
            return _apply(rules, name, operation, args, kwargs)

    return call


def _apply(rules: _Rules, name: str, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    cast: Callable[[Tensor], Tensor] = Tensor.float
    if name in LOWER:
        cast = rules.lowered
    elif name in SET_TYPE and rules.device == "cuda":
        return _with_type_set(operation, args, kwargs)
    elif name in PROMOTED:
        wide = any(value.dtype == torch.float32 for value in tree_leaves(args) if _is_eligible(value))
        cast = Tensor.float if wide else rules.lowered
    args, kwargs = tree_map(lambda value: cast(value) if _is_eligible(value) else value, (args, kwargs))
    return operation(*args, **kwargs)


def _with_type_set(operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Compute with a result in float32, unless the caller named a type or the input is not floating."""
    schema = [argument.name for argument in operation._schema.arguments]
    named = dict(zip(schema, args, strict=False)) | kwargs
    input_ = named["self"]
    if named.get("dtype") is not None or not _is_eligible(input_):
        return operation(*args, **kwargs)
    half = {"aten::softmax": torch.ops.aten._softmax, "aten::log_softmax": torch.ops.aten._log_softmax}
    if input_.dtype == torch.float16 and operation._schema.name in half:
        # On CUDA one kernel reads float16 and writes float32; on meta torch would make a copy of the input first.
        return half[operation._schema.name](input_, named["dim"], True)
    return operation(**(named | {"dtype": torch.float32}))


def _is_eligible(value: Any) -> bool:
    """Whether autocast concerns an argument: a tensor that is floating, not float64, and on ``meta``."""
    is_tensor = isinstance(value, Tensor) and value.device.type == "meta"
    return is_tensor and value.is_floating_point() and value.dtype != torch.float64
