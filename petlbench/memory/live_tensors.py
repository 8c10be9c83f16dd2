"""Account of the bytes in live tensors, on any device: what CUDA calls allocated, without CUDA.

The account follows storages, not tensors: a storage is counted once, however many views it has, from the operation that
returns it until nothing holds it any more. Memory that a kernel takes and gives back inside one operation is not
seen, nor is a storage that is resized behind the dispatcher's back (``untyped_storage().resize_()``) until an
operation returns it.
"""

from __future__ import annotations

import dataclasses
import functools
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils.hooks import RemovableHandle

from petlbench.memory.allocator import BLOCK, CachingAllocator

PARAMETERS, GRADIENTS, OPTIMIZER = "parameters", "gradients", "optimizer"
ACTIVATIONS, OTHER = "activations", "other"


@dataclasses.dataclass(slots=True)
class _Record:
    """One live storage: its rounded size, its role, its number in order of birth, and what tells of its end."""

    size: int
    role: str
    born: int
    reference: weakref.ref[torch.UntypedStorage]


class LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call, unused-ignore]
    """Counts the bytes of the tensors that live while the mode is entered, and keeps the peak.

    What lives already is not seen by itself: name it with `add` first. Works in forward, backward and optimiser step,
    on real devices and on ``meta``. The figures are those of the caching allocator's ``allocated`` bytes: each
    storage is rounded up to a whole block.

    Every storage has a role, and the peak is split by role: ``parameters`` (parameters and buffers of an added module),
    ``gradients`` (``.grad`` of its parameters), ``optimizer`` (the state of an added optimiser), ``other`` (all else
    that was added, such as the batch) and ``activations`` (all that the step makes besides: saved activations,
    gradients of activations, temporaries). A role holds for the whole life of a storage: one that is tagged later
    than it was made is moved within the peak that it was part of, too.

    Attributes:
        current: Bytes that live now.
        peak: The most bytes that lived at one time.

    Args:
        devices: Only storages on these types of device count (the CPU when none is named), so that host tensors (the
            step counts of AdamW, say) stay out of a GPU's figure.
        block: Bytes to which each storage is rounded up; 1 counts exact sizes.
        allocator: Told of every storage that comes and goes, in their order.

    Example:
        >>> with LiveTensors("meta") as live:
        ...     image = torch.empty(1, 3, 224, 224, device="meta")
        >>> live.peak
        602112
    """

    def __init__(
        self, *devices: torch.device | str, block: int = BLOCK, allocator: CachingAllocator | None = None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.current = self.peak = 0
        self._allocator = allocator
        self._devices = frozenset(torch.device(device).type for device in devices or ("cpu",))
        self._block = block
        self._records: dict[int, _Record] = {}
        self._births = 0
        self._current: Counter[str] = Counter()
        self._peak_births = 0
        self._peak_parts: Counter[str] = Counter()
        self._modules: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self._optimizers: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()
        self._hooks: list[RemovableHandle] = []

    @property
    def parts(self) -> dict[str, int]:
        """The peak's bytes by role; the values sum to `peak`."""
        roles = dict.fromkeys((PARAMETERS, GRADIENTS, OPTIMIZER, ACTIVATIONS, OTHER), 0)
        return roles | {role: size for role, size in self._peak_parts.items() if size or role in roles}

    def add(self, *things: object) -> None:
        """Count what lives already.

        An added module's gradients and an added optimiser's state are given their roles as they appear, by hooks that
        hold while the mode is entered.

        Args:
            things: Tensors, modules, optimisers, and mappings, sequences and dataclasses of them; anything else is
                passed over. Nothing is counted twice.
        """
        for thing in things:
            if isinstance(thing, nn.Module):
                self._modules.add(thing)
                self.tag(PARAMETERS, (*thing.parameters(), *thing.buffers()))
                self.tag(GRADIENTS, (each.grad for each in thing.parameters() if each.grad is not None))
            elif isinstance(thing, torch.optim.Optimizer):
                self._optimizers.add(thing)
                self._tag_optimizer(thing)
            else:
                self._count(tensors_in(thing), OTHER)
        self._note_peak()

    def tag(self, role: str, tensors: Iterable[Tensor]) -> None:
        """Give live tensors a role, and count those that are not counted yet; a view stands for its whole storage."""
        for tensor in tensors:
            for storage in _storages(tensor):
                record = self._note(storage, role)
                if record is not None and record.role != role:
                    self._move(record, role)
        self._note_peak()

    def __enter__(self) -> Self:
        """Start to watch the operations of this thread, and of the backward passes that it starts."""
        parameters = (parameter for module in self._modules for parameter in module.parameters())
        for parameter in dict.fromkeys(parameters):
            if parameter.requires_grad:
                register: Any = parameter.register_post_accumulate_grad_hook
                self._hooks.append(register(self._tag_gradient))
        for optimizer in self._optimizers:
            self._hooks.append(
                optimizer.register_step_post_hook(lambda changed, _args, _kw: self._tag_optimizer(changed))
            )
        super().__enter__()  # type: ignore[no-untyped-call, unused-ignore]
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop watching; the figures stay."""
        super().__exit__(*exception)  # type: ignore[no-untyped-call, unused-ignore]
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Torch would wrap the method below against being compiled, which nothing here is; each call would pay for it.
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The result of one operation, counted."""
        result = func(*args, **(kwargs or {}))
        self._count(tensors_in(result), ACTIVATIONS)
        self._note_peak()
        return result

    def _tag_gradient(self, parameter: Tensor) -> None:
        if parameter.grad is not None:
            self.tag(GRADIENTS, (parameter.grad,))

    def _tag_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        # The groups belong to a module: a parameter without one is counted, a parameter with one keeps its role.
        for group in optimizer.param_groups:
            self._count(group["params"], PARAMETERS)
        self.tag(OPTIMIZER, tensors_in(optimizer.state))

    def _count(self, tensors: Iterable[Tensor], role: str) -> None:
        for tensor in tensors:
            for storage in _storages(tensor):
                self._note(storage, role)

    def _note(self, storage: torch.UntypedStorage, role: str) -> _Record | None:
        """Count a storage that is new, or that has another size than when it was seen last."""
        size = -(-storage.nbytes() // self._block) * self._block
        key = id(storage)  # torch keeps one Python object per storage for as long as the storage lives
        earlier = self._records.get(key)
        if earlier is not None:
            if earlier.size == size:
                return earlier
            role = earlier.role
            self._drop(key)
        elif storage.device.type not in self._devices:
            return None
        self._births += 1
        record = _Record(size, role, self._births, weakref.ref(storage, functools.partial(self._released, key)))
        self._records[key] = record
        self._current[role] += size
        self.current += size
        if self._allocator is not None:
            self._allocator.allocate(record.born, size)
        return record

    def _released(self, key: int, reference: weakref.ref[torch.UntypedStorage]) -> None:
        # The key is an address, which a newer storage may have taken by now.
        record = self._records.get(key)
        if record is not None and record.reference is reference:
            self._drop(key)

    def _drop(self, key: int) -> None:
        record = self._records.pop(key)
        self._current[record.role] -= record.size
        self.current -= record.size
        if self._allocator is not None:
            self._allocator.release(record.born)

    def _move(self, record: _Record, role: str) -> None:
        """Change a role, also within the peak when the storage was part of it (it has lived from birth to now)."""
        splits = [self._current]
        if record.born <= self._peak_births:
            splits.append(self._peak_parts)
        for split in splits:
            split[record.role] -= record.size
            split[role] += record.size
        record.role = role

    def _note_peak(self) -> None:
        if self.current > self.peak:
            self.peak = self.current
            self._peak_births = self._births
            self._peak_parts = self._current.copy()


def tensors_in(thing: object) -> Iterator[Tensor]:
    """The tensors in mappings, sequences and dataclasses of them."""
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, Mapping):
        for value in thing.values():
            yield from tensors_in(value)
    elif isinstance(thing, list | tuple | set | frozenset):
        for value in thing:
            yield from tensors_in(value)
    elif dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        for field in dataclasses.fields(thing):
            yield from tensors_in(getattr(thing, field.name))


def _storages(tensor: Tensor) -> Sequence[torch.UntypedStorage]:
    if type(tensor) is not Tensor and is_traceable_wrapper_subclass(tensor):
        parts = (getattr(tensor, name) for name in tensor.__tensor_flatten__()[0])
        return [storage for part in parts for storage in _storages(part)]
    return (tensor.untyped_storage(),) if tensor.layout == torch.strided else ()
