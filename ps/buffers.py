"""A pool of flat buffers: what is committed is immutable until its last reader lets go."""

from __future__ import annotations

import numpy as np


class Buffer:
    """One flat vector `float32[n]` and the number of its holders."""

    __slots__ = ("array", "holders")

    def __init__(self, array: np.ndarray) -> None:
        """Wraps the memory; nobody holds it yet."""
        self.array = array
        self.holders = 0


class Pool:
    """Buffers of one size, used again once nobody holds them.

    Attributes:
        allocated: Buffers made so far: the most that were held at one time.
    """

    def __init__(self, size: int) -> None:
        """An empty pool of buffers `float32[size]`."""
        self.size = size
        self.allocated = 0
        self._spare: list[Buffer] = []

    def take(self) -> Buffer:
        """A buffer with any content, held once by the caller."""
        buffer = self._spare.pop() if self._spare else self._allocate()
        buffer.holders = 1
        return buffer

    def hold(self, buffer: Buffer) -> Buffer:
        """Adds a holder."""
        buffer.holders += 1
        return buffer

    def drop(self, buffer: Buffer) -> None:
        """Takes a holder away; the last one gives the buffer back."""
        buffer.holders -= 1
        if buffer.holders == 0:
            self._spare.append(buffer)

    def _allocate(self) -> Buffer:
        self.allocated += 1
        return Buffer(np.empty(self.size, np.float32))
