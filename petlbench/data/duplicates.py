"""Which images of a dataset are the same picture: byte for byte, pixel for pixel, or nearly so.

A near duplicate has passed two tests. Its perceptual hash (the signs of 64 low frequencies) is within `HASH_BITS` bits
of the other's, which is quick, and brings false pairs where all images have one layout. Then its fine structure (what
a blurred copy leaves over of a thumbnail) correlates with the other's by at least `LEAST_CORRELATION`. On 1,124 chest
X-rays four bits alone gave eight pairs, of which two are one picture: they correlate by 1.00 and 0.90, the six others
by up to 0.50, any two X-rays by up to 0.76; copies at 224 of 512 pixels, in JPEG of quality 30, with 20 % more light or
30 % more contrast by 0.96 to 1.00.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from petlbench.core.progress import Progress
from petlbench.data.dataset import Dataset
from petlbench.data.record import Record, map_images

HASH_BITS = 4
LEAST_CORRELATION = 0.88
THUMBNAIL = 64
"""Side of a thumbnail in pixels."""

_BLUR = 2.0  # standard deviation in pixels of a thumbnail
_BLOCK = 512  # images whose hashes are compared with as many others at once
_LOW_FREQUENCIES = 8

Kind = Literal["bytes", "pixels", "near", "mirrored"]


@dataclass(frozen=True)
class Fingerprint:
    """What is kept of an image to find its copies.

    Args:
        sha256: Digest of the file's bytes or, without a file, of the pixels'.
        pixels: Digest of the decoded RGB pixels and their size.
        thumbnail: Greys, (64, 64), 8 bits.
    """

    sha256: str
    pixels: str
    thumbnail: NDArray[np.uint8]


@dataclass(frozen=True)
class DuplicatePair:
    """Two images that show the same.

    Args:
        first: Position of one image; where more than two are equal, of the first of them.
        second: Position of the other, which is greater.
        kind: ``bytes`` or ``pixels`` where those are equal; ``near``; ``mirrored``: near its left-right mirror image.
        bits: Bits in which the perceptual hashes differ.
        correlation: Of the fine structure, -1 to 1.
    """

    first: int
    second: int
    kind: Kind
    bits: int
    correlation: float


def fingerprint(image: Image.Image, sha256: str) -> Fingerprint:
    """Return the fingerprint of an image in RGB, whose file has that digest."""
    pixels = hashlib.sha256(f"{image.width}x{image.height}:".encode())
    pixels.update(image.tobytes())
    small = image.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
    return Fingerprint(sha256, pixels.hexdigest(), np.asarray(small, dtype=np.uint8))


def perceptual_hashes(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return hashes of 64 bits, (N,), of greys, (N, 64, 64).

    Each bit says of one of 64 low frequencies whether it is stronger than their median.
    """
    from scipy.fft import dctn

    count, half = len(thumbnails), THUMBNAIL // 2
    smooth = thumbnails.reshape(count, half, 2, half, 2).mean(axis=(2, 4), dtype=np.float32)
    low = dctn(smooth, axes=(1, 2))[:, :_LOW_FREQUENCIES, :_LOW_FREQUENCIES].reshape(count, _LOW_FREQUENCIES**2)
    bits = low > np.median(low, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64).reshape(count)


def duplicate_pairs(fingerprints: Sequence[Fingerprint]) -> list[DuplicatePair]:
    """Find the images that show the same.

    Of equal images each is paired with the first of them, and only the first is compared with other images: whoever
    wants all that belong together asks `clusters`.

    Args:
        fingerprints: One an image, (N,).

    Returns:
        Pairs by the positions of their images: equal bytes and pixels first, then near ones, then mirrored ones.
    """
    equal, distinct = _equal(fingerprints)
    if len(distinct) < 2:
        return equal
    thumbnails = np.stack([fingerprints[row].thumbnail for row in distinct])
    pairs: dict[tuple[int, int], DuplicatePair] = {}
    compared: dict[Kind, NDArray[np.uint8]] = {"near": thumbnails, "mirrored": thumbnails[:, :, ::-1]}
    for kind, others in compared.items():
        for left, right, bits, correlation in _matches(thumbnails, others):
            rows = distinct[left], distinct[right]
            pairs.setdefault(rows, DuplicatePair(*rows, kind, bits, round(correlation, 4)))
    return [*equal, *pairs.values()]


def clusters(pairs: Iterable[tuple[int, int]], count: int) -> list[int]:
    """Return the smallest position in the cluster of each of `count` things; a thing without a link has its own.

    Args:
        pairs: Positions of two linked things, each 0 to count - 1.
        count: How many things there are; a cluster is what is linked, directly or through others.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = np.array([*pairs], dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(links)), links.T), shape=(count, count))
    members = connected_components(graph, directed=False)[1]
    first = np.unique(members, return_index=True)[1]
    smallest: list[int] = first[members].tolist()
    return smallest


def near_duplicate_groups(dataset: Dataset, workers: int, progress: Progress) -> Mapping[str, str]:
    """Return a group's name by image id for the images that have a duplicate; a group is named after its first image.

    With it a split can keep them on one side where patients are unknown. Images that cannot be read are in no group.
    """

    def read(record: Record) -> Fingerprint:
        return fingerprint(dataset.open(record), dataset.content_hash(record))

    prints, _ = map_images(dataset.records, read, workers, progress)
    pairs = duplicate_pairs(list(prints.values()))
    cluster = clusters([(pair.first, pair.second) for pair in pairs], len(prints))
    sizes, names = Counter(cluster), list(prints)
    return {
        name: f"duplicates of {names[first]}" for name, first in zip(names, cluster, strict=True) if sizes[first] > 1
    }


def _equal(fingerprints: Sequence[Fingerprint]) -> tuple[list[DuplicatePair], list[int]]:
    """Pairs of equal images, each with the first of them; the positions of those that stand for all."""
    pairs: list[DuplicatePair] = []
    first: dict[str, int] = {}
    for row, mark in enumerate(fingerprints):
        original = first.setdefault(mark.pixels, row)
        if original != row:
            same_file = fingerprints[original].sha256 == mark.sha256
            pairs.append(DuplicatePair(original, row, "bytes" if same_file else "pixels", 0, 1.0))
    return pairs, list(first.values())


def _fine_structure(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What a blurred copy leaves over of each thumbnail, (N, 4096), of length 1; zeros for an even image."""
    from scipy.ndimage import gaussian_filter

    greys = thumbnails.astype(np.float32)
    greys -= gaussian_filter(greys, (0, _BLUR, _BLUR))
    flat = greys.reshape(len(greys), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(np.where(length > 1, flat / np.maximum(length, 1), 0), dtype=np.float32)


def _matches(thumbnails: NDArray[np.uint8], others: NDArray[np.uint8]) -> Iterator[tuple[int, int, int, float]]:
    """Yield (row, column, bits, correlation) of what passes both tests, rows before columns."""
    for pairs, bits in close_pairs(perceptual_hashes(thumbnails), perceptual_hashes(others), HASH_BITS):
        # One product of matrices: an even set has as many candidates as pairs, each of which would cost as much alone.
        left, at_left = np.unique(pairs[:, 0], return_inverse=True)
        right, at_right = np.unique(pairs[:, 1], return_inverse=True)
        structure, other_structure = _fine_structure(thumbnails[left]), _fine_structure(others[right])
        correlation = (structure @ other_structure.T)[at_left, at_right]
        for (row, column), differing, value in zip(pairs.tolist(), bits.tolist(), correlation.tolist(), strict=True):
            if value >= LEAST_CORRELATION:
                yield row, column, differing, value


def close_pairs(
    hashes: NDArray[np.uint64], others: NDArray[np.uint64], bits: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the positions of hashes that differ in few bits, block by block.

    Args:
        hashes: 64 bits each, (N,).
        others: The same, or those of the mirror images, (N,).
        bits: Most bits that may differ.

    Yields:
        Positions (P, 2), the row before the column, and differing bits (P,).
    """
    for top in range(0, len(hashes), _BLOCK):
        for left in range(top, len(others), _BLOCK):
            differing = np.bitwise_count(hashes[top : top + _BLOCK, None] ^ others[None, left : left + _BLOCK])
            # NumPy finds places in a flat array many times faster than in one of two dimensions.
            rows, columns = np.divmod(np.flatnonzero(differing <= bits), differing.shape[1])
            few, pairs = differing[rows, columns].astype(np.int64), np.column_stack([rows + top, columns + left])
            ordered = pairs[:, 0] < pairs[:, 1]
            if ordered.any():
                yield pairs[ordered], few[ordered]
