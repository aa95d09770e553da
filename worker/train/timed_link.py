"""The connection to the shards with a clock: how long a worker waits for the servers."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from downpour.protos.chunked_vector import ChunkedVector
from downpour.worker.exchange.client import Pulled, Samples
from downpour.worker.exchange.timing import TimeSpent
from downpour.worker.train.lease_steps import Link


class TimedLink:
    """A link whose time counts as exchanges."""

    def __init__(self, link: Link, spent: TimeSpent, check: Callable[[], None] = lambda: None) -> None:
        """Passes everything on to `link`; `check` is called before every push."""
        self._link, self._spent, self._check = link, spent, check

    def pull(self, pin: int = 0) -> Pulled:
        """The committed weights."""
        begin = time.perf_counter()
        pulled = self._link.pull(pin)
        self._spent.exchange_s += time.perf_counter() - begin
        return pulled

    def push(
        self,
        gradient: np.ndarray | ChunkedVector,
        norm: float,
        samples: Samples,
        nonfinite: bool = False,
        pull: bool = True,
        base: tuple[int, ...] | None = None,
    ) -> None:
        """Sends."""
        self._check()
        begin = time.perf_counter()
        self._link.push(gradient, norm, samples, nonfinite, pull, base)
        self._spent.exchange_s += time.perf_counter() - begin

    def pulled(self) -> Pulled:
        """Waits for the replies."""
        begin = time.perf_counter()
        pulled = self._link.pulled()
        self._spent.exchange_s += time.perf_counter() - begin
        return pulled
