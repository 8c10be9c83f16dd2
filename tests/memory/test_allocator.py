"""The caching allocator's rules one by one, and any series of requests against a plain model of them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petlbench.memory.allocator import BLOCK, CachingAllocator

KIB, MIB = 2**10, 2**20


def served(*sizes: int) -> CachingAllocator:
    """An allocator that holds requests, under the names 0, 1, 2, …"""
    allocator = CachingAllocator()
    for key, size in enumerate(sizes):
        allocator.allocate(key, size)
    return allocator


def free_sizes(allocator: CachingAllocator) -> list[int]:
    return sorted(size for pool in (allocator._small, allocator._large) for size, _, _ in pool)


class TestSegments:
    @pytest.mark.parametrize(
        ("size", "reserved"),
        [
            (1, 2 * MIB),
            (MIB, 2 * MIB),
            (MIB + 1, 20 * MIB),
            (10 * MIB - BLOCK, 20 * MIB),
            (10 * MIB - BLOCK + 1, 10 * MIB),  # rounded up to a block it is 10 MiB
            (10 * MIB, 10 * MIB),
            (10 * MIB + 1, 12 * MIB),
            (12 * MIB, 12 * MIB),
            (1000 * MIB + 1, 1002 * MIB),
        ],
    )
    def test_the_size_of_a_new_segment_follows_from_the_request(self, size: int, reserved: int) -> None:
        assert served(size).reserved == reserved

    def test_a_request_of_nothing_takes_nothing(self) -> None:
        allocator = served(0)
        assert allocator.reserved == 0
        allocator.release(0)
        assert free_sizes(allocator) == []

    def test_what_was_never_allocated_cannot_be_freed(self) -> None:
        allocator = served(KIB)
        allocator.release(7)
        assert free_sizes(allocator) == [2 * MIB - KIB]

    def test_requests_are_rounded_up_to_blocks(self) -> None:
        # 4096 blocks fit into a small segment, however few bytes of each are asked for.
        assert served(*[1] * 4096).reserved == 2 * MIB
        assert served(*[1] * 4097).reserved == 4 * MIB
        assert served(*[BLOCK + 1] * 2049).reserved == 4 * MIB

    def test_small_and_large_requests_share_no_segment(self) -> None:
        # Each segment has room for the other's request.
        assert served(MIB, 2 * MIB).reserved == (2 + 20) * MIB
        assert served(2 * MIB, MIB).reserved == (20 + 2) * MIB


class TestFreeBlocks:
    def test_a_freed_block_serves_the_next_request(self) -> None:
        allocator = served(30 * MIB)
        allocator.release(0)
        allocator.allocate(1, 29 * MIB)
        assert allocator.reserved == 30 * MIB

    def test_what_is_freed_stays_reserved(self) -> None:
        allocator = served(MIB, 5 * MIB, 50 * MIB)
        for key in range(3):
            allocator.release(key)
        assert allocator.reserved == (2 + 20 + 50) * MIB

    def test_the_smallest_that_fits_is_taken(self) -> None:
        # 40, 24 and 32 MiB are free, each in a segment of its own.
        allocator = served(40 * MIB, 24 * MIB, 32 * MIB)
        for key in range(3):
            allocator.release(key)
        allocator.allocate(3, 31 * MIB)
        assert free_sizes(allocator) == [24 * MIB, 40 * MIB]

    def test_of_equal_blocks_the_first_by_address_is_taken(self) -> None:
        allocator = served(24 * MIB, 24 * MIB)
        for key in (1, 0):
            allocator.release(key)
        allocator.allocate(2, 24 * MIB)
        assert allocator._used[2].address == 0

    def test_a_small_block_is_split_when_a_single_block_remains(self) -> None:
        allocator = served(*[MIB] * 2)
        allocator.release(0)
        allocator.allocate(2, MIB - BLOCK)
        assert free_sizes(allocator) == [BLOCK]

    @pytest.mark.parametrize(("size", "remain"), [(19 * MIB, []), (19 * MIB - BLOCK, [MIB + BLOCK])])
    def test_a_large_block_is_split_when_more_than_a_small_request_remains(self, size: int, remain: list[int]) -> None:
        allocator = served(20 * MIB)
        allocator.release(0)
        allocator.allocate(1, size)
        assert free_sizes(allocator) == remain

    def test_what_is_not_split_off_comes_back_whole(self) -> None:
        allocator = served(20 * MIB)
        for key, size in enumerate((20 * MIB, 19 * MIB)):
            allocator.allocate(key + 1, size)
            allocator.release(key + 1)
        allocator.release(0)
        assert free_sizes(allocator) == [20 * MIB, 20 * MIB]

    @pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
    def test_free_neighbours_are_joined_in_any_order(self, order: tuple[int, ...]) -> None:
        allocator = served(*[4 * MIB] * 3)
        assert free_sizes(allocator) == [8 * MIB]
        for key in order:
            allocator.release(key)
        assert free_sizes(allocator) == [20 * MIB]

    def test_a_block_in_use_keeps_its_neighbours_apart(self) -> None:
        allocator = served(*[5 * MIB] * 4)
        for key in (0, 2):
            allocator.release(key)
        allocator.allocate(4, 6 * MIB)  # 10 MiB are free, but not in one piece
        assert allocator.reserved == 40 * MIB

    def test_neighbours_in_different_segments_are_not_joined(self) -> None:
        allocator = served(20 * MIB, 20 * MIB)
        for key in range(2):
            allocator.release(key)
        assert free_sizes(allocator) == [20 * MIB, 20 * MIB]


@dataclass
class Piece:
    start: int
    size: int
    key: int | None = None


class PlainModel:
    """The same rules with nothing but lists that are searched from end to end."""

    def __init__(self) -> None:
        self.segments: list[list[Piece]] = []

    @property
    def reserved(self) -> int:
        return sum(piece.size for segment in self.segments for piece in segment)

    def allocate(self, key: int, asked: int) -> None:
        size = (asked + 511) // 512 * 512
        small = size <= MIB
        fitting = [
            (piece.size, piece.start, segment, place)
            for segment in self.segments
            if self._is_small(segment) == small
            for place, piece in enumerate(segment)
            if piece.key is None and piece.size >= size
        ]
        segment, place = min(fitting, key=lambda found: found[:2])[2:] if fitting else (self._taken(size), 0)
        piece = segment[place]
        rest = piece.size - size
        if rest >= 512 if small else rest > MIB:
            segment.insert(place + 1, Piece(piece.start + size, rest))
            piece.size = size
        piece.key = key

    def release(self, key: int) -> None:
        for segment in self.segments:
            for piece in segment:
                if piece.key == key:
                    piece.key = None
            for place in reversed(range(len(segment) - 1)):
                if segment[place].key is None and segment[place + 1].key is None:
                    segment[place].size += segment.pop(place + 1).size

    def _taken(self, size: int) -> list[Piece]:
        if size <= MIB:
            whole = 2 * MIB
        else:
            whole = 20 * MIB if size < 10 * MIB else (size + 2 * MIB - 1) // (2 * MIB) * (2 * MIB)
        self.segments.append([Piece(self.reserved, whole)])
        return self.segments[-1]

    @staticmethod
    def _is_small(segment: list[Piece]) -> bool:
        # No large request is served from less than 10 MiB.
        return sum(piece.size for piece in segment) == 2 * MIB

    def live(self) -> dict[int, tuple[int, int]]:
        return {piece.key: (piece.start, piece.size) for segment in self.segments for piece in segment if piece.key}


EDGES = [1, BLOCK, BLOCK + 1, MIB - BLOCK, MIB, MIB + 1, 9 * MIB, 10 * MIB - BLOCK, 10 * MIB, 19 * MIB, 20 * MIB]
SIZES = st.sampled_from(EDGES) | st.integers(1, 4 * KIB) | st.integers(1, 3 * MIB) | st.integers(1, 64 * MIB)
# A number asks for so many bytes; a fraction frees one of those that live, counted from the oldest.
SERIES = st.lists(SIZES | st.floats(0, 1, exclude_max=True), max_size=60)


def replay(series: list[int | float], *allocators: CachingAllocator | PlainModel) -> list[int]:
    """Carry out a series; returns the names that still live."""
    live: list[int] = []
    for key, action in enumerate(series, start=1):
        if isinstance(action, int):
            live.append(key)
            for allocator in allocators:
                allocator.allocate(key, action)
        elif live:
            freed = live.pop(int(action * len(live)))
            for allocator in allocators:
                allocator.release(freed)
    return live


class TestSeries:
    @given(SERIES)
    def test_every_block_lies_where_the_plain_model_puts_it(self, series: list[int | float]) -> None:
        allocator, model = CachingAllocator(), PlainModel()
        replay(series, allocator, model)
        assert allocator.reserved == model.reserved
        assert {key: (block.address, block.size) for key, block in allocator._used.items()} == model.live()
        assert free_sizes(allocator) == sorted(
            piece.size for segment in model.segments for piece in segment if piece.key is None
        )

    @given(SERIES)
    def test_blocks_in_use_hold_what_was_asked_for_and_do_not_overlap(self, series: list[int | float]) -> None:
        allocator = CachingAllocator()
        live = replay(series, allocator)
        blocks = sorted((block.address, block.size) for block in allocator._used.values())
        assert all(start + size <= following for (start, size), (following, _) in pairwise(blocks))
        assert all(allocator._used[key].size >= series[key - 1] for key in live)
        assert sum(size for _, size in blocks) + sum(free_sizes(allocator)) == allocator.reserved

    @given(SERIES)
    def test_reserved_memory_never_falls(self, series: list[int | float]) -> None:
        allocator, reserved = CachingAllocator(), 0
        live: list[int] = []
        for key, action in enumerate(series):
            if isinstance(action, int):
                allocator.allocate(key, action)
                live.append(key)
            elif live:
                allocator.release(live.pop())
            assert allocator.reserved >= reserved
            reserved = allocator.reserved

    @given(SERIES)
    def test_when_all_is_freed_every_segment_is_one_free_block(self, series: list[int | float]) -> None:
        allocator, model = CachingAllocator(), PlainModel()
        for key in replay(series, allocator, model):
            allocator.release(key)
        assert free_sizes(allocator) == sorted(sum(piece.size for piece in segment) for segment in model.segments)
        assert sum(free_sizes(allocator)) == allocator.reserved

    @given(SERIES)
    def test_the_same_series_is_served_in_the_same_way(self, series: list[int | float]) -> None:
        first, again = CachingAllocator(), CachingAllocator()
        replay(series, first)
        replay(series, again)
        assert first.reserved == again.reserved
        assert {key: block.address for key, block in first._used.items()} == {
            key: block.address for key, block in again._used.items()
        }
