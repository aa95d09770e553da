"""Workers in virtual time that train a small network on a real shard.

The shard, its mode, its compensation and its optimizer are those of a parameter server (`ps.core`). Only time is
simulated: the durations of steps are drawn from a seed, so that every state can be reached again.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from downpour.deploy.playground.network import DATA, PlaneNetwork, data_of
from downpour.protos.sentences.sentence import sentence
from downpour.ps.core.buffers import Buffer
from downpour.ps.core.consistency import MODES, consistency_of
from downpour.ps.core.optimizer import Optimizer
from downpour.ps.core.push import Outcome, Push, Result
from downpour.ps.core.shard import Shard
from downpour.ps.core.staleness import compensation_of

MOST_WORKERS, MOST_UNITS, MOST_LAYERS = 32, 8, 4
TRANSFER = 0.1  # of a push and a pull together, in steps of a worker that is not slow
SHAPE = 8.0  # of the gamma distribution of the durations of steps, whose mean is 1
DIVERGED = 1e3  # loss


@dataclass(frozen=True)
class Setup:
    """The settings of a training in the playground.

    Attributes:
        data: A name in `network.DATA`.
        noise: The noise of the data, from 0 to 0.5.
        hidden: The number of units of each hidden layer.
        workers: The number of workers.
        mode: A consistency mode in which workers push gradients.
        compensation: A compensation of staleness.
        learning_rate: η.
        momentum: The momentum of the servers' optimizer; with 0 it is plain gradient descent.
        batch: The number of samples of a gradient.
        straggler: How many times slower worker 0 is than the others.
        seed: The seed of data, weights, batches and durations.
    """

    data: str = "circle"
    noise: float = 0.0
    hidden: tuple[int, ...] = (4, 2)
    workers: int = 4
    mode: str = "async"
    compensation: str = "none"
    learning_rate: float = 0.3
    momentum: float = 0.0
    batch: int = 10
    straggler: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: A value is not possible; the message says what must hold.
        """
        mode, compensation = consistency_of(self.mode), compensation_of(self.compensation)
        gradients = ", ".join(name for name, row in MODES.items() if consistency_of(row.example).payload == "gradient")
        checks = (
            (self.data in DATA, _one_of("data", ", ".join(DATA), self.data)),
            (0 <= self.noise <= 0.5, _in_range("noise", "0", "0.5", self.noise)),
            (
                len(self.hidden) <= MOST_LAYERS and all(1 <= units <= MOST_UNITS for units in self.hidden),
                sentence("layers", layers=MOST_LAYERS, units=MOST_UNITS, received=str(self.hidden)),
            ),
            (1 <= self.workers <= MOST_WORKERS, _in_range("workers", "1", str(MOST_WORKERS), self.workers)),
            (mode.payload == "gradient", _one_of("mode", gradients, self.mode)),
            (
                mode.workers_needed <= self.workers,
                sentence("mode_needs", mode=self.mode, needed=mode.workers_needed, received=self.workers),
            ),
            (0 < self.learning_rate <= 100, sentence("rate_in_range", received=f"{self.learning_rate:g}")),
            (0 <= self.momentum < 1, sentence("momentum_in_range", received=f"{self.momentum:g}")),
            (1 <= self.batch <= 100, _in_range("batch", "1", "100", self.batch)),
            (1 <= self.straggler <= 50, _in_range("straggler", "1", "50", self.straggler)),
        )
        for holds, text in checks:
            if not holds:
                raise ValueError(text)
        del compensation


def _one_of(name: str, choices: str, received: str) -> str:
    return sentence("field_one_of", name=name, choices=choices, received=received)


def _in_range(name: str, least: str, most: str, received: float) -> str:
    return sentence("field_in_range", name=name, least=least, most=most, received=f"{received:g}")


@dataclass(frozen=True, slots=True)
class PushEvent:
    """The outcome of a push: when, of which worker, with which staleness, and at which version."""

    time: float
    worker: int
    staleness: int
    version: int
    applied: bool


@dataclass(frozen=True, slots=True)
class Interval:
    """A part of a worker's time: `transfer`, `compute` or `wait`."""

    worker: int
    kind: str
    start: float
    stop: float


@dataclass
class _Step:
    """A step that a worker has begun."""

    start: float
    stop: float
    buffer: Buffer
    version: int
    compute_from: float


@dataclass
class Engine:
    """A training that advances push by push.

    Attributes:
        setup: The settings of the training.
        time: The virtual time, in steps of a worker that is not slow.
        pushes: The number of pushes so far.
        events: The outcomes of the pushes, in order.
        intervals: What every worker did, in the order of the ends.
        spread: The largest difference between the clocks of two workers so far.
    """

    setup: Setup
    time: float = 0.0
    pushes: int = 0
    events: list[PushEvent] = field(default_factory=list)
    intervals: list[Interval] = field(default_factory=list)
    spread: int = 0

    def __post_init__(self) -> None:
        """Build the data, the network and the shard, and let every worker begin its first step."""
        s = self.setup
        self.network = PlaneNetwork(s.hidden)
        points, labels = data_of(s.data, s.noise, s.seed)
        half = len(points) // 2
        self.train, self.test = (points[:half], labels[:half]), (points[half:], labels[half:])
        name, hyper = ("momentum", {"momentum": s.momentum}) if s.momentum else ("sgd", {})
        optimizer = Optimizer(name, {"learning_rate": s.learning_rate, **hyper}, self.network.size)
        self.shard = Shard(
            self.network.initial(s.seed), optimizer, consistency_of(s.mode), compensation_of(s.compensation),
            self._concluded,
        )  # fmt: skip
        self._random = [np.random.default_rng((s.seed, 2, worker)) for worker in range(s.workers)]
        self._steps: dict[int, _Step] = {}
        self._waiting: dict[int, float] = {}  # since when, by worker
        self._queue: list[tuple[float, int]] = []
        self._seq: Counter[int] = Counter()
        for worker in range(s.workers):
            self.shard.join(worker, 1)
        for worker in range(s.workers):
            self._begin(worker)

    @property
    def weights(self) -> np.ndarray:
        """A copy of the committed weights, `float32[n]`."""
        buffer, _ = self.shard.pull()
        copy = buffer.array.copy()
        self.shard.release(buffer)
        return copy

    @property
    def diverged(self) -> bool:
        """Whether the weights are not finite or the loss is very large."""
        return not np.isfinite(loss := self.loss()) or loss > DIVERGED

    def loss(self, test: bool = False) -> float:
        """Return the mean loss of the committed weights on the training or the test data."""
        return self.network.loss(self.weights, *(self.test if test else self.train))

    def accuracy(self, test: bool = True) -> float:
        """Return the accuracy of the committed weights on the test or the training data."""
        return self.network.accuracy(self.weights, *(self.test if test else self.train))

    def run(self, pushes: int) -> Engine:
        """Advance by a number of pushes, and return this engine."""
        for _ in range(pushes):
            self._step()
        return self

    def staleness(self, worker: int | None = None) -> Counter[int]:
        """Return how many updates had each staleness, of one worker or of all."""
        mine = (event for event in self.events if event.applied and worker in (None, event.worker))
        return Counter(event.staleness for event in mine)

    def share(self, kind: str, workers: Sequence[int] | None = None) -> float:
        """Return the fraction of the workers' time that they spent computing, transferring or waiting."""
        mine = [each for each in self.intervals if workers is None or each.worker in workers]
        total = sum(each.stop - each.start for each in mine)
        return sum(each.stop - each.start for each in mine if each.kind == kind) / total if total else 0.0

    def activity(self) -> list[dict[str, Any]]:
        """Return what every worker does at present: its state and, of a step, the fraction that is over."""
        found = []
        for worker in range(self.setup.workers):
            step = self._steps.get(worker)
            if step is None:
                found.append({"state": "wait", "done": 0.0, "pushes": self._seq[worker]})
                continue
            done = (self.time - step.start) / max(1e-9, step.stop - step.start)
            state = "transfer" if self.time < step.compute_from else "compute"
            found.append({"state": state, "done": min(1.0, max(0.0, done)), "pushes": self._seq[worker]})
        return found

    # ------------------------------------------------------------------ steps

    def _begin(self, worker: int) -> None:
        """Let a worker pull the weights and compute its next gradient."""
        if (since := self._waiting.pop(worker, None)) is not None and since < self.time:
            self.intervals.append(Interval(worker, "wait", since, self.time))
        slow = self.setup.straggler if worker == 0 else 1.0
        duration = slow * self._random[worker].gamma(SHAPE, 1 / SHAPE)
        buffer, version = self.shard.pull(worker=worker)
        compute_from = self.time + TRANSFER
        step = _Step(self.time, compute_from + duration, buffer, version, compute_from)
        self._steps[worker] = step
        heapq.heappush(self._queue, (step.stop, worker))

    def _step(self) -> None:
        """Let the worker whose step ends first push its gradient."""
        self.time, worker = heapq.heappop(self._queue)
        step = self._steps.pop(worker)
        self.intervals.append(Interval(worker, "transfer", step.start, step.compute_from))
        self.intervals.append(Interval(worker, "compute", step.compute_from, step.stop))
        points, labels = self.train
        chosen = self._random[worker].integers(0, len(points), self.setup.batch)
        gradient = self.network.gradient(step.buffer.array, points[chosen], labels[chosen])
        self.shard.release(step.buffer)
        self._seq[worker] += 1
        norm = float(np.linalg.norm(gradient.astype(np.float64)))
        push = Push(worker, 1, self._seq[worker], step.version, samples=self.setup.batch, norm=norm)
        self._waiting[worker] = self.time
        self.shard.push(push, gradient)
        self.pushes += 1
        clocks = self.shard.consistency.clocks.values()
        self.spread = max(self.spread, max(clocks) - min(clocks))
        for each in sorted(self._waiting):
            if self.shard.may_proceed(each):
                self._begin(each)

    def _concluded(self, push: Push, result: Result) -> None:
        applied = result.outcome == Outcome.APPLIED
        self.events.append(PushEvent(self.time, push.worker, result.staleness, result.version, applied))
