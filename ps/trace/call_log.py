"""Calls on a shard: every one that its state depends on, in order. With the trace, enough to do a job again. Pure.

The trace tells what became of each push, in the order of the outcomes; this tells when it arrived, and who was a
member then.
"""

from __future__ import annotations

import struct
from enum import IntEnum

import numpy as np

from downpour.ps.config import JobSettings

LARGEST_RECORDED = 1 << 24  # weights: 64 MiB


class Call(IntEnum):
    """A method of `Shard`."""

    PUSH = 0
    JOIN = 1
    JOIN_RESTING = 2
    LEAVE = 3
    REST = 4
    RESUME = 5
    FLUSH = 6
    PULL = 7  # only where a compensation needs the weights that gradients were computed from
    BEGIN = 8  # version 0 was set: what stands before is void


DTYPE = np.dtype([("seq", "<u8"), ("call", "<u4"), ("worker", "<u4"), ("incarnation", "<u4")])
_RECORD = struct.Struct("<Q3I")


def is_recorded(settings: JobSettings, weights: int) -> bool:
    """Whether a job of so many weights, n + m, is recorded so that it can be replayed."""
    return settings.record == "on" or (settings.record == "auto" and weights <= LARGEST_RECORDED)


class CallLog:
    """Calls that nobody has taken yet.

    Attributes:
        on: Whether calls are kept.
        pulls: Whether pulls are among them.
    """

    def __init__(self) -> None:
        """Keeps nothing."""
        self.on = self.pulls = False
        self._records = bytearray()

    def begin(self, pulls: bool) -> None:
        """Keeps calls from now on, on a shard that gets its initial weights."""
        self.on, self.pulls, self._records = True, pulls, bytearray()
        self.add(Call.BEGIN)

    def end(self) -> None:
        """Keeps nothing more, and nothing of what there is."""
        self.on, self.pulls, self._records = False, False, bytearray()

    def add(self, call: Call, worker: int = 0, incarnation: int = 0, seq: int = 0) -> None:
        """Keeps a call, if calls are kept."""
        if self.on:
            self._records += _RECORD.pack(seq, call, worker, incarnation)

    def take(self) -> bytes:
        """The records since the last time."""
        if not self._records:
            return b""
        records, self._records = bytes(self._records), bytearray()
        return records
