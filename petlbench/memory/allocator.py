"""PyTorch's CUDA caching allocator, modelled: how much memory it takes from the driver to serve a series of requests.

Torch does not ask the driver for each tensor. It takes segments, cuts them into blocks, and keeps what is freed for
later. So what it holds (``reserved``) depends on the order in which tensors come and go, and can be replayed.
"""

from __future__ import annotations

import bisect
import dataclasses

BLOCK = 512
"""Bytes to which a request is rounded up."""

# Requests up to this size share the pool of small segments.
_SMALL_REQUEST = 2**20
_SMALL_SEGMENT = 2 * 2**20
# Requests below this size are served from a segment of a common size, larger ones get a segment of their own.
_LARGE_REQUEST = 10 * 2**20
_LARGE_SEGMENT = 20 * 2**20
_SEGMENT_STEP = 2 * 2**20


@dataclasses.dataclass(slots=True, eq=False)
class _Block:
    """A stretch of a segment, between its neighbours in the same segment."""

    address: int
    size: int
    pool: list[tuple[int, int, _Block]]
    before: _Block | None = None
    behind: _Block | None = None
    free: bool = False

    @property
    def entry(self) -> tuple[int, int, _Block]:
        """The block's place among the free ones; no two have the same address, so blocks are never compared."""
        return (self.size, self.address, self)


class CachingAllocator:
    """Replays requests as torch's allocator serves them with its default settings, on one stream.

    Free blocks are chosen by best fit, split where enough remains, and joined with free neighbours. What a request
    does not find among them is taken from the driver: 2 MiB for requests up to 1 MiB, 20 MiB for those below 10 MiB,
    and for larger ones the next multiple of 2 MiB. Source: the rules of ``CUDACachingAllocator.cpp`` in torch 2.

    Example:
        >>> allocator = CachingAllocator()
        >>> allocator.allocate(1, 3 * 2**20)
        >>> allocator.reserved // 2**20
        20
    """

    def __init__(self) -> None:
        self.reserved = 0
        """Bytes taken from the driver; nothing is ever given back, so this is the peak too."""
        self._small: list[tuple[int, int, _Block]] = []
        self._large: list[tuple[int, int, _Block]] = []
        self._used: dict[int, _Block] = {}

    def allocate(self, key: int, size: int) -> None:
        """Serve a request of some bytes, which is freed by its key; one of none takes nothing."""
        if size <= 0:
            return
        size = -(-size // BLOCK) * BLOCK
        pool = self._small if size <= _SMALL_REQUEST else self._large
        index = bisect.bisect_left(pool, (size, -1))  # shorter than an entry, and sorted before it
        block = pool.pop(index)[2] if index < len(pool) else self._new_segment(size, pool)
        block.free = False
        rest = block.size - size
        if rest >= BLOCK if pool is self._small else rest > _SMALL_REQUEST:
            self._split(block, size)
        self._used[key] = block

    def release(self, key: int) -> None:
        """Free what was allocated under a name; the memory stays reserved."""
        block = self._used.pop(key, None)
        if block is None:
            return
        block.free = True
        for neighbour in (block.before, block.behind):
            if neighbour is not None and neighbour.free:
                self._join(block, neighbour)
        bisect.insort(block.pool, block.entry)

    def _new_segment(self, size: int, pool: list[tuple[int, int, _Block]]) -> _Block:
        segment = -(-size // _SEGMENT_STEP) * _SEGMENT_STEP
        if size < _LARGE_REQUEST:
            segment = _SMALL_SEGMENT if size <= _SMALL_REQUEST else _LARGE_SEGMENT
        block = _Block(self.reserved, segment, pool)
        self.reserved += segment
        return block

    def _split(self, block: _Block, size: int) -> None:
        rest = _Block(block.address + size, block.size - size, block.pool, before=block, behind=block.behind, free=True)
        if block.behind is not None:
            block.behind.before = rest
        block.behind, block.size = rest, size
        bisect.insort(block.pool, rest.entry)

    @staticmethod
    def _join(block: _Block, neighbour: _Block) -> None:
        del block.pool[bisect.bisect_left(block.pool, neighbour.entry[:2])]
        block.size += neighbour.size
        if neighbour is block.before:
            block.address, block.before = neighbour.address, neighbour.before
            if block.before is not None:
                block.before.behind = block
        else:
            block.behind = neighbour.behind
            if block.behind is not None:
                block.behind.before = block
