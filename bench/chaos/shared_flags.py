"""Bytes in a file that the processes of a chaos round map: which workers have a push in flight, and how many."""

from __future__ import annotations

import mmap
from pathlib import Path

FILE_VARIABLE = "DOWNPOUR_CHAOS_FLAGS"  # path of the file
SHAPE_VARIABLE = "DOWNPOUR_CHAOS_SHAPE"  # `slices samples pause_ms`
# Offsets: one byte that ends the pauses, then per worker one that is 1 while a push is in flight, one with the number
# of its latest push (modulo 256), and one with the number of the latest push that was answered.
NO_PAUSE, IN_FLIGHT, SENT, ANSWERED, SIZE_BYTES = 0, 1, 64, 128, 192


class SharedFlags:
    """A sequence of bytes that several processes read and write through a file."""

    def __init__(self, path: Path) -> None:
        """Map the existing file at `path`."""
        with path.open("r+b") as file:
            self._bytes = mmap.mmap(file.fileno(), 0)

    def __getitem__(self, offset: int) -> int:
        """Return the byte at `offset`."""
        return self._bytes[offset]

    def __setitem__(self, offset: int, value: int) -> None:
        """Set the byte at `offset`."""
        self._bytes[offset] = value
