"""How long the steps of a worker took, and how much of that it waited for the servers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class TimeSpent:
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
