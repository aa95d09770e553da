"""One shard of the weights: a pure state machine that knows no I/O, no lock and no clock of its own.

The gRPC server, the tests, the simulator and the replay drive this same object.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from protos.errors import Fenced, FutureVersion, InvalidRequest, UnknownWorker
from ps.buffers import Buffer, Pool
from ps.consistency import Consistency
from ps.optimizers import Optimizer

REMEMBERED_OUTCOMES = 64  # per worker: more than it can have in flight


class Outcome(IntEnum):
    """What became of a push; the numbers are those of the wire."""

    APPLIED = 0
    BUFFERED = 1
    DROPPED = 2


@dataclass(frozen=True, slots=True)
class Push:
    """What a worker says of a gradient that it pushes.

    Attributes:
        base_version: The version that the gradient was computed from.
        samples: That the gradient averages over.
        norm: Of the whole gradient, over all shards.
        nonfinite: The whole gradient holds NaN or Inf.
        start: With `stop`, the range of the epoch's permutation that was used.
    """

    worker: int
    incarnation: int
    seq: int
    base_version: int
    samples: int = 1
    norm: float = 0.0
    nonfinite: bool = False
    loss: float = 0.0
    correct: int = 0
    lease: int = 0
    epoch: int = 0
    start: int = 0
    stop: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a push, as its worker is told and the trace records it.

    Attributes:
        version: That the update made; of the shard when the push was dropped or buffered.
        staleness: Updates between the base version and the one that this push is part of.
        learning_rate: Effective, after staleness policy and schedule; 0 unless applied.
        reason: Why it was dropped.
    """

    outcome: Outcome
    version: int
    staleness: int
    learning_rate: float = 0.0
    reason: str = ""


@dataclass
class _Worker:
    incarnation: int
    results: OrderedDict[int, Result] = field(default_factory=OrderedDict)
    last_seq: int = 0


class Shard:
    """Weights, version, optimizer slots and the memory of outcomes: one atomic state.

    Attributes:
        version: Updates applied.
        generation: Which life of the shard this is.
        on_outcome: Called once for every push when its outcome is final, in order.
    """

    def __init__(
        self,
        initial: np.ndarray,
        optimizer: Optimizer,
        consistency: Consistency,
        scale: Callable[[int], float] = lambda staleness: 1.0,
        on_outcome: Callable[[Push, Result], None] = lambda push, result: None,
        generation: int = 1,
    ) -> None:
        """Commits the initial vector as version 0.

        Args:
            initial: `float32[n + m]`: trained weights, then state that is not trained.
            optimizer: Over the n trained weights.
            consistency: The mode.
            scale: What a gradient of a staleness is worth, as a factor on the learning rate.
            on_outcome: Receives every final outcome.
            generation: Which life of the shard this is.
        """
        self.version = 0
        self.generation = generation
        self.on_outcome = on_outcome
        self._trained = optimizer.size
        self._optimizer = optimizer
        self._consistency = consistency
        self._scale = scale
        self._pool = Pool(len(initial))
        self._committed = self._pool.take()
        self._committed.array[:] = initial
        self._pending: list[tuple[Push, np.ndarray]] = []
        self._workers: dict[int, _Worker] = {}
        self._pins: dict[int, tuple[Buffer, int]] = {}

    # ------------------------------------------------------------------ membership

    def join(self, worker: int, incarnation: int) -> None:
        """Admits a worker's incarnation; an older one of the same number is fenced from here on."""
        self._workers[worker] = _Worker(incarnation)
        self._consistency.join(worker)

    def leave(self, worker: int) -> None:
        """Lets a worker go; what waited only for it is applied."""
        if self._workers.pop(worker, None) is not None:
            self._consistency.leave(worker)
            self._settle()

    # ------------------------------------------------------------------ pulls

    @property
    def size(self) -> int:
        """Elements of the vector, n + m."""
        return self._pool.size

    @property
    def learning_rate(self) -> float:
        """The optimizer's step size, before staleness policy and schedule."""
        return self._optimizer.learning_rate

    def pull(self, pin: int = 0) -> tuple[Buffer, int]:
        """The committed buffer and its version; the caller holds it until `release`.

        Args:
            pin: The number of a pin, for what was committed when it was set.

        Raises:
            InvalidRequest: There is no such pin.
        """
        if pin and pin not in self._pins:
            raise InvalidRequest(
                f"weights must be pinned before they are pulled as pin {pin}; pinned are {[*self._pins]}."
            )
        buffer, version = self._pins[pin] if pin else (self._committed, self.version)
        return self._pool.hold(buffer), version

    def release(self, buffer: Buffer) -> None:
        """Ends a hold that `pull` gave."""
        self._pool.drop(buffer)

    def pin(self, number: int) -> None:
        """Keeps what is committed now, to be pulled as `number` until `unpin`."""
        self.unpin(number)
        self._pins[number] = self.pull()

    def unpin(self, number: int) -> None:
        """Lets pinned weights go."""
        pinned = self._pins.pop(number, None)
        if pinned is not None:
            self._pool.drop(pinned[0])

    # ------------------------------------------------------------------ pushes

    def recorded(self, worker: int, incarnation: int, seq: int) -> Result | None:
        """The outcome of a push that arrived before; None if it is new.

        Raises:
            UnknownWorker: The worker is not a member, or this incarnation of it is not.
        """
        member = self._workers.get(worker)
        if member is None or member.incarnation != incarnation:
            living = "none" if member is None else str(member.incarnation)
            raise UnknownWorker(
                f"worker {worker} incarnation {incarnation} must be a member; the shard knows incarnation {living}. "
                "Its session has expired or was taken over: register again."
            )
        if seq > member.last_seq:
            return None
        result = member.results.get(seq)
        if result is None:
            raise InvalidRequest(
                f"seq must be above {member.last_seq - REMEMBERED_OUTCOMES} to be answered from memory; received {seq}."
            )
        return result

    def remembered(self, worker: int, incarnation: int, seq: int) -> Result | None:
        """What is known of a push; None if it or its worker is forgotten."""
        member = self._workers.get(worker)
        return member.results.get(seq) if member and member.incarnation == incarnation else None

    def push(self, push: Push, gradient: np.ndarray) -> Result:
        """Takes a gradient `float32[n + m]` (the last m: what to add to the state).

        A shard that buffers keeps a reference: the caller must not write to `gradient` afterwards.

        Returns:
            The outcome so far; a buffered push's final one goes to `on_outcome` and `recorded`.

        Raises:
            UnknownWorker: The worker is not a member, or this incarnation of it is not.
            InvalidRequest: Wrong length, or seq 0.
            FutureVersion: The base version has not been reached.
        """
        before = self.recorded(push.worker, push.incarnation, push.seq)
        if before is not None:
            return before
        self._check(push, gradient)
        self._workers[push.worker].last_seq = push.seq
        self._consistency.tick(push.worker)
        staleness = self.version - push.base_version
        reason = self._refuse(push, gradient)
        if reason:
            return self._conclude(push, Result(Outcome.DROPPED, self.version, staleness, reason=reason))
        self._remember(push, Result(Outcome.BUFFERED, self.version, staleness))
        self._pending.append((push, gradient))
        self._settle()
        return self._workers[push.worker].results[push.seq]

    def may_proceed(self, worker: int) -> bool:
        """Whether the worker's reply may leave: its next step may start, or it is no member any more."""
        return worker not in self._workers or self._consistency.may_proceed(worker, self.version)

    def check_generation(self, generation: int) -> None:
        """Raises Fenced unless the number is this life's."""
        if generation != self.generation:
            raise Fenced(
                f"a push must come from weights of generation {self.generation} of this shard; received one from "
                f"generation {generation}. Pull again and drop the gradient."
            )

    def _check(self, push: Push, gradient: np.ndarray) -> None:
        if push.seq < 1:
            raise InvalidRequest(f"seq must be 1 or more; received {push.seq}.")
        if not push.nonfinite and len(gradient) != self.size:
            raise InvalidRequest(
                f"a push to this shard must have {self.size:,} elements; received {len(gradient):,}. "
                "Check that the worker's model is the job's."
            )
        if push.base_version > self.version:
            raise FutureVersion(
                f"a base version must be at most the shard's version, {self.version}; received {push.base_version}. "
                "Pull again: the shard may have been restored from an older checkpoint."
            )

    def _refuse(self, push: Push, gradient: np.ndarray) -> str:
        # The sum of squares is finite unless an element is not, or it overflows: only then look at each.
        suspect = push.nonfinite or not np.isfinite(push.norm) or not np.isfinite(np.dot(gradient, gradient))
        if suspect and (push.nonfinite or not np.isfinite(push.norm) or not np.isfinite(gradient).all()):
            return "nonfinite"
        return self._consistency.refuse(push, self.version)

    # ------------------------------------------------------------------ updates

    def _settle(self) -> None:
        """Applies what the mode says is ready."""
        while chosen := self._consistency.group([push for push, _ in self._pending], self.version):
            group = [self._pending[index] for index in chosen]
            for index in sorted(chosen, reverse=True):
                del self._pending[index]
            self._apply(group)

    def _apply(self, group: list[tuple[Push, np.ndarray]]) -> None:
        """One update from the mean of a group: w' = w − η·g into a spare buffer, swapped in."""
        staleness = [self.version - push.base_version for push, _ in group]
        gradient, rate = self._mean(group, staleness)
        spare, n = self._pool.take(), self._trained
        old, new = self._committed.array, spare.array
        self._optimizer.apply(old[:n], gradient[:n], new[:n], learning_rate=rate)
        if len(new) > n:
            np.add(old[n:], gradient[n:], out=new[n:])
        self._pool.drop(self._committed)
        self._committed = spare
        self.version += 1
        for (push, _), tau in zip(group, staleness, strict=True):
            self._conclude(push, Result(Outcome.APPLIED, self.version, tau, float(rate)))

    def _mean(self, group: list[tuple[Push, np.ndarray]], staleness: list[int]) -> tuple[np.ndarray, float]:
        """The group's gradient and learning rate; several are averaged, weighted by samples."""
        rate = self._optimizer.learning_rate
        if len(group) == 1:
            return group[0][1], rate * self._scale(staleness[0])
        total = sum(push.samples for push, _ in group)
        mean = np.zeros(self.size, np.float32)
        for (push, gradient), tau in zip(group, staleness, strict=True):
            mean += gradient * np.float32(self._scale(tau) * push.samples / total)
        return mean, rate

    def _conclude(self, push: Push, result: Result) -> Result:
        self._remember(push, result)
        self.on_outcome(push, result)
        return result

    def _remember(self, push: Push, result: Result) -> None:
        member = self._workers.get(push.worker)
        if member is None or member.incarnation != push.incarnation:
            return
        member.results[push.seq] = result
        while len(member.results) > REMEMBERED_OUTCOMES:
            member.results.popitem(last=False)
