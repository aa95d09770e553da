"""A cluster in virtual time: the server's own shard, driven by a heap of events instead of processes.

Workers compute for drawn times, the server may take a drawn time for each push, and a push, its update and the
worker's next pull are one instant, as in the real exchange. No gRPC, no TensorFlow, no clock.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from bench.problems import Problem
from bench.tally import Tally
from ps.buffers import Buffer
from ps.consistency import EASGD, Consistency, LocalSGD
from ps.shard import Push, Shard

COMPUTED, SERVED = 0, 1
NONFINITE_PUSHES = 10  # per worker: then the run is given up


@dataclass(frozen=True, slots=True)
class Cycle:
    """What a worker does between two pushes, and between two pulls.

    Attributes:
        push_every: Local steps in a push.
        fetch_every: Local steps from pull to pull; a multiple of `push_every`.
        learning_rate: η of local steps.
    """

    push_every: int = 1
    fetch_every: int = 1
    learning_rate: float = 0.0


class VirtualWorker:
    """One worker: what it has pulled, what it computes from it, when it is done."""

    __slots__ = ("number", "times", "base", "held", "weights", "seq", "steps", "life", "queued")

    def __init__(self, number: int, times: Iterator[float]) -> None:
        """Has pulled nothing."""
        self.number, self.times = number, times
        self.base = self.seq = self.steps = self.life = 0
        self.held: Buffer | None = None
        self.weights: np.ndarray = np.empty(0, np.float32)
        self.queued = False


class Simulation:
    """P workers and a shard.

    Attributes:
        now_s: Virtual time.
        tally: What the outcomes add up to.
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
        """Everybody has pulled version 0 and starts to compute.

        Args:
            shard: Without workers; its `on_outcome` is taken.
            consistency: The shard's.
            problem: Gives gradients.
            compute: Seconds of each worker's steps.
            service: Seconds that the server takes for each push, one after the other; None: no time.
            cycle: Local steps (default: none).
            observe: Told of every version and its weights.
            warm_start: Versions that worker 0 makes alone.
        """
        self.now_s = 0.0
        self._shard, self._policy, self._problem = shard, consistency, problem
        self._service, self._observe, self._warm_start = service, observe, warm_start
        self._cycle = cycle or Cycle()
        if isinstance(consistency, EASGD | LocalSGD):
            self._cycle = Cycle(consistency.period, consistency.period, self._cycle.learning_rate)
        self._local = self._cycle.fetch_every > 1 or consistency.payload != "gradient"
        self._workers = [VirtualWorker(number, times) for number, times in enumerate(compute)]
        self.tally = Tally(len(compute))
        shard.on_outcome = self.tally.outcome
        self._heap: list[tuple[float, int, int, int, int, float]] = []
        self._order, self._free_s = 0, 0.0
        self._waiting: dict[int, VirtualWorker] = {}
        self._gate_state = shard.gate_state
        self._asleep = self._workers[1:] if warm_start else []
        for worker in self._workers if not warm_start else self._workers[:1]:
            self._admit(worker)

    @property
    def in_flight_age(self) -> int:
        """Σ over the workers that compute: versions since their pull."""
        return sum(self._shard.version - w.base for w in self._workers if w.number not in self._waiting)

    def run(self, updates: int) -> None:
        """Goes on until the shard has reached version `updates`, or gradients are no longer finite."""
        shard, heap = self._shard, self._heap
        hopeless = NONFINITE_PUSHES * len(self._workers)
        while shard.version < updates and heap and self.tally.dropped["nonfinite"] < hopeless:
            self.now_s, _, kind, number, life, since = heapq.heappop(heap)
            worker = self._workers[number]
            if kind == COMPUTED and life == worker.life:
                if self._service is None:
                    self._push(worker)
                else:
                    start_s = max(self.now_s, self._free_s)
                    self._free_s = start_s + next(self._service)
                    self._schedule(self._free_s, SERVED, worker, start_s - self.now_s)
                    worker.queued = True
            elif kind == SERVED:
                self.tally.wait_s += since
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

    def _compute(self, worker: VirtualWorker) -> None:
        took_s = next(worker.times)
        for _ in range(self._cycle.push_every - 1):
            took_s += next(worker.times)
        self._schedule(self.now_s + took_s, COMPUTED, worker)

    def _fetch(self, worker: VirtualWorker) -> None:
        """Pulls: holds the committed buffer, or copies it where local steps will change it."""
        if worker.held is not None:
            self._shard.release(worker.held)
        worker.held, worker.base = self._shard.answer(worker.number)
        worker.weights = worker.held.array.copy() if self._local else worker.held.array

    def _push(self, worker: VirtualWorker) -> None:
        shard, version = self._shard, self._shard.version
        payload, remainder = self._payload(worker)
        worker.seq += 1
        steps = self._cycle.push_every
        worker.steps += steps
        samples = self._problem.batch * steps
        push = Push(worker.number, 1, worker.seq, worker.base, samples, steps=steps)
        shard.push(push, payload)
        self.tally.tick(worker.number)
        if shard.version != version:
            self._updated()
        if shard.may_proceed(worker.number):
            self._proceed(worker, remainder)
        else:
            self._waiting[worker.number] = worker
        if self._waiting and shard.gate_state != self._gate_state:
            self._gate_state = shard.gate_state
            for waiting in [w for w in self._waiting.values() if shard.may_proceed(w.number)]:
                del self._waiting[waiting.number]
                self._proceed(waiting, None)
        if self._policy.restarts and shard.version != version:
            self._restart()

    def _proceed(self, worker: VirtualWorker, remainder: np.ndarray | None) -> None:
        if worker.steps % self._cycle.fetch_every == 0:
            self._fetch(worker)
            if remainder is not None:
                worker.weights += remainder
        self._compute(worker)

    def _restart(self) -> None:
        """Cancels what is being computed, not what has been sent: all begin again from the newest version."""
        for worker in self._workers:
            if worker.base != self._shard.version and worker.number not in self._waiting and not worker.queued:
                worker.life += 1
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

    def _payload(self, worker: VirtualWorker) -> tuple[np.ndarray, np.ndarray | None]:
        """What a worker pushes, and what it adds to its weights after the exchange."""
        if not self._local:
            return self._problem.gradient(worker.number, worker.weights), None
        η = np.float32(self._cycle.learning_rate)
        total = np.zeros(len(worker.weights), np.float32)
        before = worker.weights.copy()
        for step in range(self._cycle.push_every):
            gradient = self._problem.gradient(worker.number, worker.weights)
            if self._policy.payload == "replica" and step == self._cycle.push_every - 1:
                return worker.weights, -η * gradient
            total += gradient
            worker.weights -= η * gradient
        return (worker.weights - before if self._policy.payload == "difference" else total), None


def run_delayed(
    shard: Shard, problem: Problem, updates: int, delay: int, workers: int,
    observe: Callable[[int, np.ndarray], None] | None = None,
) -> Tally:  # fmt: skip
    """Updates with a constant delay: every gradient comes from the version `delay` before, or from version 0.

    Raises:
        ValueError: No update is made any more.
    """
    tally, history = Tally(workers), deque[tuple[Buffer, int]]()
    shard.on_outcome = tally.outcome
    for worker in range(workers):
        shard.join(worker, 1)
    history.append(shard.pull(worker=0))
    idle = pushes = 0
    while (version := shard.version) < updates and tally.dropped["nonfinite"] < NONFINITE_PUSHES:
        while history[0][1] < version - delay:
            shard.release(history.popleft()[0])
        worker, (buffer, base) = pushes % workers, history[0]
        push = Push(worker, 1, pushes // workers + 1, base, problem.batch)
        shard.push(push, problem.gradient(worker, buffer.array))
        pushes += 1
        idle = 0 if shard.version > version else idle + 1
        if idle > 100_000:
            raise ValueError(f"a delay of {delay} versions leaves no push that this mode applies: nothing moves")
        if shard.version > version:
            history.append(shard.pull(worker=worker))
            if observe is not None:
                observe(shard.version, history[-1][0].array)
    return tally
