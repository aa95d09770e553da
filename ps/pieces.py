"""A vector as the messages that brought it: read where they lie, instead of put together first. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np


class Pieces:
    """`float32[n]` in several pieces of memory, only to be read.

    Attributes:
        arrays: The pieces, in order; none is empty.
    """

    def __init__(self, messages: Sequence[bytes]) -> None:
        """Of messages that hold whole elements, at least one each."""
        self.arrays = [np.frombuffer(message, np.float32) for message in messages]
        self._starts = [0, *accumulate(map(len, self.arrays))]

    def __len__(self) -> int:
        """Elements, n."""
        return self._starts[-1]

    def __getitem__(self, part: slice) -> np.ndarray:
        """Elements in a row: a view if they lie in one piece, else a copy."""
        start, stop, _ = part.indices(len(self))
        first = min(bisect_right(self._starts, start), len(self.arrays)) - 1
        own = self._starts[first]
        if stop <= self._starts[first + 1]:
            return self.arrays[first][start - own : stop - own]
        last = bisect_right(self._starts, stop - 1)
        return np.concatenate(self.arrays[first:last])[start - own : stop - own]
