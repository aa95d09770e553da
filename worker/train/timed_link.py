"""The connection to the shards with a clock that measures how long a worker waits for the servers."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from downpour.protos.chunked_vector import ChunkedVector
from downpour.worker.exchange.client import Pulled
from downpour.worker.exchange.push_info import PushInfo
from downpour.worker.exchange.timing import TimeSpent
from downpour.worker.train.lease_steps import Link


class TimedLink:
    """A link whose calls count as time in exchanges."""

    def __init__(self, link: Link, spent: TimeSpent, check: Callable[[], None] = lambda: None) -> None:
        """Wrap a link.

        Args:
            link: Called for everything.
            spent: Its `exchange_s` grows by the time of every call.
            check: Called before every push.
        """
        self._link, self._spent, self._check = link, spent, check

    def pull(self, pin: int = 0) -> Pulled:
        """Return the committed weights, or those pinned under a number."""
        begin = time.perf_counter()
        pulled = self._link.pull(pin)
        self._spent.exchange_s += time.perf_counter() - begin
        return pulled

    def push(self, gradient: np.ndarray | ChunkedVector, info: PushInfo, pull: bool = True) -> None:
        """Send a gradient to all shards, unless the watchdog has taken over."""
        self._check()
        begin = time.perf_counter()
        self._link.push(gradient, info, pull)
        self._spent.exchange_s += time.perf_counter() - begin

    def pulled(self) -> Pulled:
        """Wait for the replies to a push."""
        begin = time.perf_counter()
        pulled = self._link.pulled()
        self._spent.exchange_s += time.perf_counter() - begin
        return pulled
