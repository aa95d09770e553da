"""Measures the time of a worker's steps, and the part of it in which the worker waited for the servers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from downpour.protos.system import clock


@dataclass
class TimeSpent:
    """The times that a worker has spent in steps and in exchanges.

    Attributes:
        step_s: The seconds in training steps, which consist of gradients and exchanges.
        exchange_s: The part of `step_s` in exchanges, from a request to its reply. With `--overlap`, only the time
            spent waiting.
    """

    step_s: float = 0.0
    exchange_s: float = 0.0

    @contextmanager
    def training(self) -> Iterator[None]:
        """Count the time within the context as training steps."""
        begin = clock.perf_counter()
        try:
            yield
        finally:
            self.step_s += clock.perf_counter() - begin
