"""The clocks of the process: `monotonic`, `perf_counter` and `wall`, all in seconds.

They are the functions of `time` themselves, so that reading a clock costs nothing more; a simulator replaces them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """The interface of the clocks of a process."""

    def monotonic(self) -> float:
        """Return the seconds since an arbitrary moment; the value never decreases. Deadlines use this clock."""

    def perf_counter(self) -> float:
        """Return the seconds since an arbitrary moment, with the highest resolution."""

    def wall(self) -> float:
        """Return the seconds since 1970-01-01 UTC; the value jumps when the clock is set."""


class SystemClock:
    """The clocks of the operating system."""

    monotonic = staticmethod(time.monotonic)
    perf_counter = staticmethod(time.perf_counter)
    wall = staticmethod(time.time)


monotonic: Callable[[], float] = time.monotonic
perf_counter: Callable[[], float] = time.perf_counter
wall: Callable[[], float] = time.time


def use(clock: Clock) -> None:
    """Replace the clocks of this process."""
    global monotonic, perf_counter, wall
    monotonic, perf_counter, wall = clock.monotonic, clock.perf_counter, clock.wall
