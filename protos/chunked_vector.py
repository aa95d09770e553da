"""A vector that lies in several chunks of memory and is read in place, without joining them first.

This module is pure: it does no I/O and reads no clock.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np


class ChunkedVector:
    """A read-only `float32[n]` in several chunks of memory.

    Attributes:
        arrays: The chunks, in order; none is empty.
    """

    def __init__(self, chunks: Sequence[bytes | np.ndarray]) -> None:
        """Create a vector of chunks, each of which holds at least one element, and whole ones."""
        self.arrays = [np.frombuffer(chunk, np.float32) for chunk in chunks]
        self._starts = [0, *accumulate(map(len, self.arrays))]

    def __len__(self) -> int:
        """Return the number of elements, n."""
        return self._starts[-1]

    def __getitem__(self, part: slice) -> np.ndarray:
        """Return consecutive elements: a view if they lie in one chunk, else a copy."""
        start, stop, _ = part.indices(len(self))
        views = self.within(start, stop)
        return views[0] if len(views) == 1 else np.concatenate(views)

    def within(self, start: int, stop: int) -> list[np.ndarray]:
        """Return views of consecutive elements, in order, one per chunk that holds some of them."""
        first = min(bisect_right(self._starts, start), len(self.arrays)) - 1
        views = []
        for own, array in zip(self._starts[first:], self.arrays[first:], strict=False):
            views.append(array[max(start - own, 0) : stop - own])
            if stop <= own + len(array):
                break
        return views


def euclidean_norm(vector: np.ndarray | ChunkedVector) -> float:
    """Return the Euclidean norm of a vector `float32[n]`; it is finite exactly if every element is.

    The sum of the squares is computed in float32, and in float64 only if it exceeds the range of float32.
    """
    arrays = vector.arrays if isinstance(vector, ChunkedVector) else [vector]
    with np.errstate(over="ignore", invalid="ignore"):
        squares = sum(float(np.dot(array, array)) for array in arrays)
        if not math.isfinite(squares):
            squares = sum(float(np.square(array, dtype=np.float64).sum()) for array in arrays)
    return math.sqrt(squares)
