"""A vector in pieces of memory: read where they lie, instead of put together first. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np


class ChunkedVector:
    """`float32[n]` in several pieces of memory, only to be read.

    Attributes:
        arrays: The pieces, in order; none is empty.
    """

    def __init__(self, pieces: Sequence[bytes | np.ndarray]) -> None:
        """Of pieces that hold whole elements, at least one each."""
        self.arrays = [np.frombuffer(piece, np.float32) for piece in pieces]
        self._starts = [0, *accumulate(map(len, self.arrays))]

    def __len__(self) -> int:
        """Elements, n."""
        return self._starts[-1]

    def __getitem__(self, part: slice) -> np.ndarray:
        """Elements in a row: a view if they lie in one piece, else a copy."""
        start, stop, _ = part.indices(len(self))
        views = self.within(start, stop)
        return views[0] if len(views) == 1 else np.concatenate(views)

    def within(self, start: int, stop: int) -> list[np.ndarray]:
        """Views of the elements in a row, in order: of every piece what lies among them."""
        first = min(bisect_right(self._starts, start), len(self.arrays)) - 1
        views = []
        for own, array in zip(self._starts[first:], self.arrays[first:], strict=False):
            views.append(array[max(start - own, 0) : stop - own])
            if stop <= own + len(array):
                break
        return views
