"""How long the steps of a worker took, and how much of that it waited for the servers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from protos.pieces import Pieces
from worker.client import Pulled, Samples
from worker.course import Link


@dataclass
class Spent:
    """What a worker's time went to.

    Attributes:
        step_s: Training: gradients and exchanges.
        exchange_s: Of that, in exchanges: from a message to the weights that answer it, gates included. With
            `--overlap`, only what is waited for.
    """

    step_s: float = 0.0
    exchange_s: float = 0.0

    @contextmanager
    def training(self) -> Iterator[None]:
        """While it lasts, time counts as steps."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.step_s += time.perf_counter() - begin


class TimedLink:
    """A link whose time counts as exchanges."""

    def __init__(self, link: Link, spent: Spent, check: Callable[[], None] = lambda: None) -> None:
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
        gradient: np.ndarray | Pieces,
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
