"""Who may proceed, and which pushes apply now: pure predicates, one row per mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol


class Pushed(Protocol):
    """What a policy may know of a push."""

    @property
    def worker(self) -> int:
        """Who pushed."""

    @property
    def base_version(self) -> int:
        """The version that the gradient was computed from."""


class Consistency:
    """A mode. Knows live workers, their clocks and the pushes that wait; never weights, time or waiting.

    The base is asynchronous: every push is an update of its own, nobody waits, nothing is dropped.

    Attributes:
        clocks: Completed steps of every live worker.
    """

    def __init__(self) -> None:
        """Starts without workers."""
        self.clocks: dict[int, int] = {}

    def join(self, worker: int) -> None:
        """Admits a worker; one that joins late starts at the smallest clock."""
        self.clocks[worker] = min(self.clocks.values(), default=0)

    def leave(self, worker: int) -> None:
        """Forgets a worker: it left, died or has no more data."""
        self.clocks.pop(worker, None)

    def tick(self, worker: int) -> None:
        """Counts a step that a worker has completed."""
        if worker in self.clocks:
            self.clocks[worker] += 1

    def refuse(self, push: Pushed, version: int) -> str:
        """Why the push must be dropped now that the shard is at `version`; empty if it counts."""
        return ""

    def group(self, pending: Sequence[Pushed], version: int) -> list[int]:
        """Indices of the waiting pushes whose mean is the next update; empty if there is none yet."""
        return [0] if pending else []

    def may_proceed(self, worker: int, version: int) -> bool:
        """Whether the worker may start its next step."""
        return True


class Async(Consistency):
    """Downpour SGD (Dean et al., NIPS 2012): p' = p + Δp as pushes arrive."""


MODES: dict[str, Callable[[], Consistency]] = {
    "async": Async,
}


def consistency_of(mode: str) -> Consistency:
    """The policy that a `--mode` value stands for."""
    return MODES[mode]()
