"""The outcomes of pushes, which are counted and packed for the trace in batches.

Processing a batch takes a fifth of the time of processing each outcome after its push, when the code is no longer in
the processor's caches. Outcomes are therefore kept for `KEPT_S` seconds.
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
        start_s: The start of the time axis of the trace, by the monotonic clock.
    """

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        """Create a log that holds no outcomes.

        Args:
            metrics: The totals that outcomes are added to.
            clock: A function that returns the time in seconds.
        """
        self._metrics, self._clock = metrics, clock
        self._fresh: list[tuple[Push, Result, float, float]] = []
        self._arrived: dict[tuple[int, int, int], float] = {}  # times of pushes without an outcome
        self._packed, self._count = bytearray(), 0
        self.start_s = clock()

    def continue_from(self, start_s: float) -> None:
        """Continue the time axis of an earlier process.

        Args:
            start_s: The start of that axis by this process's clock, in seconds.
        """
        self.start_s = start_s

    def add(self, push: Push, result: Result) -> None:
        """Record the final outcome of a push."""
        now = self._clock()
        wait_s = now - self._arrived.pop(push[:3], now) if self._arrived else 0.0
        self._fresh.append((push, result, now, wait_s))
        if len(self._fresh) == 1:
            self._settle_soon()

    def buffered(self, push: Push) -> None:
        """Record that a push has arrived, whose outcome depends on other pushes."""
        self._arrived[push[:3]] = self._clock()

    def _settle_soon(self) -> None:
        try:
            asyncio.get_running_loop().call_later(KEPT_S, self.settle)
        except RuntimeError:  # there is no event loop, and so no reply that counting now would delay
            self.settle()

    def settle(self) -> None:
        """Count and pack the outcomes since the last call."""
        fresh, self._fresh = self._fresh, []
        for push, result, now, wait_s in fresh:
            self._metrics.record(push, result, now)
            self._packed += trace.pack(push, result, now - self.start_s, wait_s)
        self._count += len(fresh)

    @property
    def metrics(self) -> Metrics:
        """The totals of all outcomes."""
        self.settle()
        return self._metrics

    @property
    def count(self) -> int:
        """The number of trace records so far, including those that were taken."""
        self.settle()
        return self._count

    def take(self) -> bytes:
        """Return the trace records since the last call."""
        self.settle()
        records, self._packed = bytes(self._packed), bytearray()
        return records

    def drop(self) -> None:
        """Discard the records that were not taken."""
        self.settle()
        self._packed = bytearray()

    def go_back(self, count: int) -> None:
        """Restore the state after the first `count` records."""
        self.drop()
        self._arrived.clear()
        self._count = count
