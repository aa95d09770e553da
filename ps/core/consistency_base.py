"""The interface of a consistency mode, and the asynchronous behaviour that every mode begins with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

StalenessLaw = Literal["own", "group", "zero", ""]


class PendingPush(Protocol):
    """The properties of a waiting push that a mode may use."""

    @property
    def worker(self) -> int:
        """The rank of the worker that sent the push."""


class Consistency:
    """A consistency mode. It knows the live workers and their clocks, and never weights, time or waiting.

    The base class is asynchronous: every push is an update of its own, no worker waits, and nothing is dropped.

    Attributes:
        clocks: The number of completed steps of every live worker.
        minimum: The smallest clock; without live workers, its last value.
        buffers: Whether pushes wait to be applied together.
        restarts: Whether an update cancels the steps that are under way (in virtual time only).
        payload: The content of a push: a gradient, the difference of some local steps, or a worker's own weights.
        stale_gradients: Whether a gradient of an earlier version can be part of an update.
        pulls_per_lease: Whether workers pull for every lease, because the mode may drop gradients of old weights.
        fixed_assignment: Whether the result depends on nothing but the samples of each worker, which a script therefore
            assigns in a fixed order.
        staleness_law: What is known of the distribution of a worker's staleness if all durations are exponential:
            `own`, geometric with the worker's share of the updates (an SSP bound makes it steeper); `group`, geometric
            with K / P, for updates of the gradients of K of P workers; `zero`; or empty, if it has no closed form.
        slack: The bound s on the difference of the workers' clocks; None without a bound.
        weighs_slow_workers: Whether the mode is meant to keep the contribution of slow workers.
        period: The number of local steps per push that the mode prescribes.
        rho: For replicas, the strength of the elastic force: α = ηρ.
    """

    buffers = False
    restarts = False
    payload: Literal["gradient", "difference", "replica"] = "gradient"
    stale_gradients = True
    pulls_per_lease = False
    fixed_assignment = False
    staleness_law: StalenessLaw = ""
    slack: int | None = None
    weighs_slow_workers = False
    period = 1
    rho = 0.0

    def __init__(self) -> None:
        """Create a mode without live workers."""
        self.clocks: dict[int, int] = {}
        self.minimum = 0
        self._at: dict[int, int] = {}  # live workers by clock

    @property
    def live(self) -> int:
        """The number of live workers."""
        return len(self.clocks)

    @property
    def workers_needed(self) -> int:
        """How many workers the job must have for an update to happen."""
        return 1

    def on_shard(self, index: int) -> Consistency:
        """Return the mode as the shard with this index, from 0, follows it; most modes are the same on all shards."""
        return self

    def join(self, worker: int) -> None:
        """Add a live worker. A worker that joins late starts at the smallest clock."""
        self.leave(worker)
        self.clocks[worker] = self.minimum
        self._at[self.minimum] = self._at.get(self.minimum, 0) + 1

    def leave(self, worker: int) -> None:
        """Remove a worker that has left, has died or has no more data."""
        clock = self.clocks.pop(worker, None)
        if clock is not None:
            self._at[clock] -= 1
            if not self._at[clock]:
                del self._at[clock]
            if self._at:
                self.minimum = min(self._at)

    def tick(self, worker: int) -> None:
        """Count a step that a worker has completed."""
        clock = self.clocks.get(worker)
        if clock is None:
            return
        at = self._at
        self.clocks[worker] = clock + 1
        at[clock + 1] = at.get(clock + 1, 0) + 1
        if at[clock] > 1:
            at[clock] -= 1
            return
        del at[clock]
        if clock == self.minimum:
            self.minimum = clock + 1

    def refuse(self, staleness: int) -> str:
        """Return why a push of that staleness must be dropped; empty if it is accepted."""
        return ""

    def group(self, pending: Sequence[PendingPush], senders: Mapping[int, int]) -> list[int]:
        """Return the indices of the pending pushes that form the next update, in the order of summation.

        Args:
            pending: The pushes that wait, by arrival.
            senders: The number of pending pushes of each worker.
        """
        return [0] if pending else []

    def may_proceed(self, worker: int, senders: Mapping[int, int]) -> bool:
        """Return whether the worker may start its next step, given the senders of the pending pushes."""
        return True

    def expected_staleness(self) -> float:
        """Return the mean staleness if all live workers are equally fast, with one step in flight each."""
        return max(0.0, self.live - 1.0)

    def warnings(self, workers: int, learning_rate: float, virtual: bool) -> list[str]:
        """Return one sentence for each setting of the mode that works but is unwise.

        Args:
            workers: The number of workers of the job.
            learning_rate: η of the job.
            virtual: Whether time is virtual, so that steps can be interrupted.
        """
        return []


def in_worker_order(pending: Sequence[PendingPush]) -> list[int]:
    """Return the indices of all pushes by worker and then arrival: sums in this order are reproducible bit by bit."""
    return sorted(range(len(pending)), key=lambda index: pending[index].worker)
