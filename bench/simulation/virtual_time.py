"""A cluster in virtual time: the server's own shard, driven by a heap of events instead of processes.

Workers compute for random times, the server may need a random time for each push, and a push, its update and the
worker's next pull happen at one instant, as in the real exchange. No gRPC, no TensorFlow, no clock.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from downpour.bench.simulation.problems import Problem
from downpour.bench.simulation.run_statistics import OutcomeStatistics
from downpour.ps.core.buffers import Buffer
from downpour.ps.core.consistency_base import Consistency
from downpour.ps.core.push import Push
from downpour.ps.core.shard import Shard

COMPUTED, SERVED = 0, 1
NONFINITE_PUSHES = 10  # limit per worker, after which the run ends


@dataclass(frozen=True, slots=True)
class Cycle:
    """The number of local steps between two pushes and between two pulls of a worker.

    Attributes:
        push_every: The number of local steps per push.
        fetch_every: The number of local steps per pull.
        learning_rate: η of local steps.
    """

    push_every: int = 1
    fetch_every: int = 1
    learning_rate: float = 0.0


class VirtualWorker:
    """The state of a simulated worker: the weights it pulled, its local steps, and its stream of step times."""

    __slots__ = (
        "number", "times", "base", "held", "weights", "seq", "life", "queued", "since_push", "since_fetch", "total",
        "remainder",
    )  # fmt: skip

    def __init__(self, number: int, times: Iterator[float]) -> None:
        """Build a worker that has not pulled any weights yet."""
        self.number, self.times = number, times
        self.base = self.seq = self.life = 0
        self.since_push = self.since_fetch = 0  # local steps
        self.total: np.ndarray | None = None  # of the gradients since the last push, or of the moves
        self.remainder: np.ndarray | None = None  # is added to the weights after the exchange
        self.held: Buffer | None = None
        self.weights: np.ndarray = np.empty(0, np.float32)
        self.queued = False


class Simulation:
    """A simulation of P workers and a shard.

    Attributes:
        now_s: The virtual time in seconds.
        statistics: The statistics of all outcomes.
    """

    def __init__(
        self,
        shard: Shard,
        consistency: Consistency,
        problem: Problem,
        compute: list[Iterator[float]],
        service: Iterator[float] | None = None,
        cycle: Cycle | None = None,
        observe: Callable[[int, np.ndarray], None] | None = None,
        warm_start: int = 0,
    ) -> None:
        """Build a simulation in which every worker has pulled version 0 and starts to compute.

        Args:
            shard: A shard without workers; its `on_outcome` is replaced.
            consistency: The consistency mode of the shard.
            problem: The source of gradients.
            compute: For each worker, the durations of its steps in seconds.
            service: The seconds that the server needs for each push, one push at a time (default: none).
            cycle: The local steps of a worker (default: one per push and pull).
            observe: A callback that receives every version and its weights.
            warm_start: The number of versions that worker 0 makes alone.
        """
        self.now_s = 0.0
        self._shard, self._policy, self._problem = shard, consistency, problem
        self._service, self._observe, self._warm_start = service, observe, warm_start
        self._cycle = cycle or Cycle()
        if consistency.payload != "gradient":
            self._cycle = Cycle(consistency.period, consistency.period, self._cycle.learning_rate)
        longest = max(self._cycle.push_every, self._cycle.fetch_every)
        self._local = longest > 1 or consistency.payload != "gradient"
        self._workers = [VirtualWorker(number, times) for number, times in enumerate(compute)]
        self.statistics = OutcomeStatistics(len(compute))
        shard.observe(self.statistics.outcome)
        self._heap: list[tuple[float, int, int, int, int, float]] = []
        self._order, self._free_s = 0, 0.0
        self._waiting: dict[int, VirtualWorker] = {}
        self._gate_state = shard.gate_state
        self._asleep = self._workers[1:] if warm_start else []
        for worker in self._workers if not warm_start else self._workers[:1]:
            self._admit(worker)

    @property
    def in_flight_age(self) -> int:
        """The number of versions since the pull, summed over the workers that compute."""
        return sum(self._shard.version - w.base for w in self._workers if w.number not in self._waiting)

    def run(self, updates: int) -> None:
        """Run until the shard has reached version `updates`, or too many gradients were not finite."""
        shard, heap = self._shard, self._heap
        limit = NONFINITE_PUSHES * len(self._workers)
        while shard.version < updates and heap and self.statistics.dropped["nonfinite"] < limit:
            self.now_s, _, kind, number, life, since = heapq.heappop(heap)
            worker = self._workers[number]
            if kind == COMPUTED and life == worker.life:
                if self._local and not self._stepped(worker):
                    self._fetch(worker)
                    self._compute(worker)
                elif self._service is None:
                    self._push(worker)
                else:
                    start_s = max(self.now_s, self._free_s)
                    self._free_s = start_s + next(self._service)
                    self._schedule(self._free_s, SERVED, worker, start_s - self.now_s)
                    worker.queued = True
            elif kind == SERVED:
                self.statistics.wait_s += since
                worker.queued = False
                self._push(worker)

    # ------------------------------------------------------------------ one worker

    def _admit(self, worker: VirtualWorker) -> None:
        self._shard.join(worker.number, 1)
        self._fetch(worker)
        self._compute(worker)

    def _schedule(self, at_s: float, kind: int, worker: VirtualWorker, wait_s: float = 0.0) -> None:
        self._order += 1
        heapq.heappush(self._heap, (at_s, self._order, kind, worker.number, worker.life, wait_s))

    def _due(self, worker: VirtualWorker) -> int:
        """Return the number of local steps until the next push or pull."""
        return min(self._cycle.push_every - worker.since_push, self._cycle.fetch_every - worker.since_fetch)

    def _compute(self, worker: VirtualWorker) -> None:
        duration_s = next(worker.times)
        for _ in range(self._due(worker) - 1 if self._local else 0):
            duration_s += next(worker.times)
        self._schedule(self.now_s + duration_s, COMPUTED, worker)

    def _fetch(self, worker: VirtualWorker) -> None:
        """Pull: hold the committed buffer, or copy it if local steps will change it."""
        if worker.held is not None:
            self._shard.release(worker.held)
        worker.held, worker.base = self._shard.answer(worker.number)
        worker.weights = worker.held.array.copy() if self._local else worker.held.array
        worker.since_fetch = 0

    def _push(self, worker: VirtualWorker) -> None:
        shard, version = self._shard, self._shard.version
        payload = self._payload(worker)
        worker.seq += 1
        steps = self._cycle.push_every
        samples = self._problem.batch * steps
        push = Push(worker.number, 1, worker.seq, worker.base, samples, steps=steps)
        shard.push(push, payload)
        self.statistics.tick(worker.number)
        if shard.version != version:
            self._updated()
        if shard.may_proceed(worker.number):
            self._proceed(worker)
        else:
            self._waiting[worker.number] = worker
        if self._waiting and shard.gate_state != self._gate_state:
            self._gate_state = shard.gate_state
            for waiting in [w for w in self._waiting.values() if shard.may_proceed(w.number)]:
                del self._waiting[waiting.number]
                self._proceed(waiting)
        if self._policy.restarts and shard.version != version:
            self._restart()

    def _proceed(self, worker: VirtualWorker) -> None:
        if not self._local or worker.since_fetch == self._cycle.fetch_every:
            self._fetch(worker)
            if worker.remainder is not None:
                worker.weights += worker.remainder
        self._compute(worker)

    def _restart(self) -> None:
        """Cancel all computations, but no push that was sent; the workers restart from the newest version."""
        for worker in self._workers:
            if worker.base != self._shard.version and worker.number not in self._waiting and not worker.queued:
                worker.life += 1
                worker.since_push, worker.total = 0, None
                self._fetch(worker)
                self._compute(worker)

    def _updated(self) -> None:
        if self._observe is not None:
            buffer, version = self._shard.pull()
            self._observe(version, buffer.array)
            self._shard.release(buffer)
        if self._asleep and self._shard.version >= self._warm_start:
            asleep, self._asleep = self._asleep, []
            for worker in asleep:
                self._admit(worker)

    # ------------------------------------------------------------------ what is pushed

    def _payload(self, worker: VirtualWorker) -> np.ndarray:
        """Return what a worker pushes: a gradient, a sum of gradients or moves, or its weights."""
        if not self._local:
            return self._problem.gradient(worker.number, worker.weights)
        payload = worker.weights if self._policy.payload == "replica" else worker.total
        worker.since_push, worker.total = 0, None
        assert payload is not None
        return payload

    def _stepped(self, worker: VirtualWorker) -> bool:
        """Carry out the local steps whose time has passed, and return whether a push is due."""
        η, steps = np.float32(self._cycle.learning_rate), self._due(worker)
        replica, difference = self._policy.payload == "replica", self._policy.payload == "difference"
        if worker.total is None:
            worker.total = np.zeros(len(worker.weights), np.float32)
        worker.since_push += steps
        worker.since_fetch += steps
        for step in range(steps):
            gradient = self._problem.gradient(worker.number, worker.weights)
            move = -η * gradient
            if replica and step == steps - 1:  # the gradient precedes the exchange, the move follows it
                worker.remainder = move
                break
            worker.total += move if difference else gradient
            worker.weights += move
        return worker.since_push == self._cycle.push_every
