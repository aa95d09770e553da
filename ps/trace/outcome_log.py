"""What became of pushes, counted and packed for the trace a few at a time.

One by one, after every push, this code would be fetched anew from memory each time: it takes a fifth of the time in a
row. So what is told is kept for a moment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from downpour.ps.core.push import Push, Result
from downpour.ps.trace import format as trace
from downpour.ps.trace.metrics import Metrics

KEPT_S = 0.01


class OutcomeLog:
    """The outcomes of one shard's pushes.

    Attributes:
        start_s: When the trace's time began, by the monotonic clock.
    """

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        """None yet.

        Args:
            metrics: Counts them.
            clock: In seconds.
        """
        self._metrics, self._clock = metrics, clock
        self._fresh: list[tuple[Push, Result, float]] = []
        self._packed, self._count = bytearray(), 0
        self.start_s = clock()

    def add(self, push: Push, result: Result) -> None:
        """Takes an outcome that is final."""
        self._fresh.append((push, result, self._clock()))
        if len(self._fresh) == 1:
            self._settle_soon()

    def _settle_soon(self) -> None:
        try:
            asyncio.get_running_loop().call_later(KEPT_S, self.settle)
        except RuntimeError:  # no event loop: nobody waits for a reply
            self.settle()

    def settle(self) -> None:
        """Counts and packs those that have come since the last time."""
        fresh, self._fresh = self._fresh, []
        for push, result, now in fresh:
            self._metrics.record(push, result, now)
            self._packed += trace.pack(push, result, now - self.start_s)
        self._count += len(fresh)

    @property
    def metrics(self) -> Metrics:
        """What they add up to."""
        self.settle()
        return self._metrics

    @property
    def count(self) -> int:
        """Records of the trace so far, those among them that were taken."""
        self.settle()
        return self._count

    def take(self) -> bytes:
        """The trace's records since the last call."""
        self.settle()
        records, self._packed = bytes(self._packed), bytearray()
        return records

    def drop(self) -> None:
        """Forgets the records that nobody has taken."""
        self.settle()
        self._packed = bytearray()

    def go_back(self, count: int) -> None:
        """Goes on as if so many records had been written, and none since."""
        self.drop()
        self._count = count
