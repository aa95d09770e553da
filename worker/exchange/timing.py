"""The time of a worker's steps, and the part of it that the worker waited for the servers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class TimeSpent:
    """What a worker's time was used for.

    Attributes:
        step_s: Time in training steps: gradients and exchanges.
        exchange_s: The part of `step_s` in exchanges, from a request to its reply. With `--overlap`, only the time
            that is waited for.
    """

    step_s: float = 0.0
    exchange_s: float = 0.0

    @contextmanager
    def training(self) -> Iterator[None]:
        """Count the time of a block as training steps."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.step_s += time.perf_counter() - begin
