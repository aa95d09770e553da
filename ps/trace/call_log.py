"""The call log: every call that the state of a shard depends on, in order.

Together with the trace it is sufficient to replay a job. The trace records the outcome of each push, in the order of
the outcomes; the call log records when each push arrived, and which workers were members then.

This module is pure: it does no I/O and reads no clock.
"""

from __future__ import annotations

import struct
from enum import IntEnum

import numpy as np

from downpour.ps.config import JobSettings

LARGEST_RECORDED = 1 << 24  # number of weights up to which `auto` records a job: 64 MiB of initial weights


class Call(IntEnum):
    """A kind of call, mostly a method of `Shard`."""

    PUSH = 0
    JOIN = 1
    JOIN_RESTING = 2
    LEAVE = 3
    REST = 4
    RESUME = 5
    FLUSH = 6
    PULL = 7  # only if a compensation needs the base weights of gradients
    BEGIN = 8  # version 0 was set, which voids earlier records
    CHANGE = 9  # of the job's settings; `seq` is the number of the change in `changes.json`
    ASSIGN = 10  # a script's worker has assigned weights or a slot
    RATES = 11  # the learning rates of a script's optimizers were set
    LEASE = 12  # samples were leased to a script's worker; `seq` is that of `lease_seq`
    MARK = 13  # a replay writes the weights of the shard here, whose version is `seq`
    LEASE_SIZE = 14  # follows `LEASE`; `seq` is the number of its samples


DTYPE = np.dtype([("seq", "<u8"), ("call", "<u4"), ("worker", "<u4"), ("incarnation", "<u4")])
_RECORD = struct.Struct("<Q3I")


NO_EPOCH = (1 << 32) - 1  # in place of the epoch of a lease in a loop of downpour.training


def lease_seq(epoch: int, number: int) -> int:
    """Return the number under which a lease is recorded, given its epoch in the call of `fit` and its number there."""
    return epoch << 32 | number


def epoch_of(seq: int) -> int:
    """Return the epoch of a lease that is recorded under a number."""
    return seq >> 32


def is_recorded(settings: JobSettings, weights: int) -> bool:
    """Return whether a job is recorded for replay, given the number of its weights, n + m."""
    return settings.record == "on" or (settings.record == "auto" and weights <= LARGEST_RECORDED)


class CallLog:
    """The recorded calls that have not been taken yet.

    Attributes:
        on: Whether calls are recorded.
        pulls: Whether pulls are recorded, too.
        paused: Whether calls were recorded until a call of a script's `fit` had ended.
    """

    def __init__(self) -> None:
        """Create a log that records nothing yet."""
        self.on = self.pulls = self.paused = False
        self._records = bytearray()

    @property
    def drives(self) -> bool:
        """Whether the record decides when workers rest and resume, and when buffered pushes are applied."""
        return False

    def begin(self, pulls: bool) -> None:
        """Start recording, on a shard that receives its initial weights; earlier calls of `fit` remain."""
        if not self.paused:
            self._records = bytearray()
        self.on, self.pulls, self.paused = True, pulls, False
        self.add(Call.BEGIN)

    def record_pulls(self, pulls: bool) -> None:
        """Record pulls from now on, or no longer, if calls are recorded."""
        self.pulls = self.on and pulls

    def end(self) -> None:
        """Stop recording, and discard all records."""
        self.on, self.pulls, self.paused, self._records = False, False, False, bytearray()

    def pause(self) -> None:
        """Stop recording until the next call of `fit` begins."""
        self.on, self.pulls, self.paused = False, False, self.paused or self.on

    def admits(self, call: Call, worker: int = 0, seq: int = 0) -> bool:
        """Return whether a call may be made now; only a replay makes calls wait."""
        return True

    def add(self, call: Call, worker: int = 0, incarnation: int = 0, seq: int = 0) -> None:
        """Record a call, if calls are recorded."""
        if self.on:
            self._records += _RECORD.pack(seq, call, worker, incarnation)

    def take(self) -> bytes:
        """Return the records since the last call of `take`."""
        if not self._records:
            return b""
        records, self._records = bytes(self._records), bytearray()
        return records
