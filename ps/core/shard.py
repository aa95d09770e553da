"""One shard of the weights: a pure state machine that knows no I/O, no lock and no clock of its own.

The gRPC server, the tests, the simulator and the replay drive this same object.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from downpour.protos.chunked_vector import ChunkedVector
from downpour.protos.errors import Fenced, FutureVersion, InvalidRequest
from downpour.ps.core.apply import Update
from downpour.ps.core.buffers import Buffer, Pool, Versions
from downpour.ps.core.consistency import Consistency, in_worker_order
from downpour.ps.core.dedup import PushHistory
from downpour.ps.core.optimizer import Optimizer
from downpour.ps.core.push import Outcome, Push, Result
from downpour.ps.core.schedules import Schedule, schedule_of
from downpour.ps.core.staleness import Compensation

VERSION_MEMORY_BYTES = 1 << 30


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
        compensation: Compensation | None = None,
        on_outcome: Callable[[Push, Result], None] = lambda push, result: None,
        generation: int = 1,
        pool: Pool | None = None,
        schedule: Schedule | None = None,
        momentum_correction: bool = False,
        version_memory_bytes: int = VERSION_MEMORY_BYTES,
        version_depth: int = 1,
    ) -> None:
        """Commits the initial vector as version 0.

        Args:
            initial: `float32[n + m]`: trained weights, then state that is not trained.
            optimizer: Over the n trained weights.
            consistency: The mode.
            compensation: What a stale gradient is worth (default: as much as a fresh one).
            on_outcome: Receives every final outcome.
            generation: Which life of the shard this is.
            pool: Of buffers `float32[n + m]` (default: on the heap).
            schedule: The factor on the learning rate by version (default: 1).
            momentum_correction: Whether explicit momentum makes room for that of asynchrony.
            version_memory_bytes: For old weights that a compensation needs.
            version_depth: Pulls of one worker whose weights it may need.
        """
        self.version = 0
        self.generation = generation
        self.on_outcome = on_outcome
        self._optimizer = optimizer
        self._consistency = consistency
        self._compensation = compensation or Compensation()
        bases = (Consistency.refuse, Compensation.refuse)
        self._refuses = (type(consistency).refuse, type(self._compensation).refuse) != bases
        self._pool = pool or Pool(len(initial))
        self._versions = Versions(self._pool, version_memory_bytes // (4 * len(initial)), version_depth)
        schedule = schedule or schedule_of("constant")
        self._rule = Update(
            optimizer, consistency, self._compensation, schedule, self._versions.get, momentum_correction
        )
        self._committed = self._pool.take()
        self._committed.array[:] = initial
        self._pending: list[tuple[Push, np.ndarray]] = []
        self._senders: dict[int, int] = {}  # pushes of each worker that wait
        self._answers: dict[int, Buffer] = {}  # weights of a worker's own, for its reply
        self._moves = 0
        self._outcomes = PushHistory()
        self._pins: dict[int, tuple[Buffer, int]] = {}

    # ------------------------------------------------------------------ membership

    def join(self, worker: int, incarnation: int, resting: bool = False) -> None:
        """Admits a worker's incarnation; an older one of the same number is fenced from here on."""
        self._outcomes.join(worker, incarnation)
        self._forget(worker)
        if resting:
            self.rest(worker)
        else:
            self.resume(worker)

    def leave(self, worker: int) -> None:
        """Lets a worker go; what waited only for it is applied."""
        if self._outcomes.leave(worker):
            self._forget(worker)
            self._compensation.leave(worker)
            self.rest(worker)

    def rest(self, worker: int) -> None:
        """A worker has no data for now: nobody waits for it until it pushes or resumes."""
        self._consistency.leave(worker)
        self._moves += 1
        self._settle()

    def resume(self, worker: int) -> None:
        """A worker has data again: it counts, from the smallest clock on."""
        if worker not in self._consistency.clocks:
            self._consistency.join(worker)
            self._moves += 1

    def _forget(self, worker: int) -> None:
        self._versions.leave(worker)
        self._take_answer(worker)

    def _take_answer(self, worker: int) -> None:
        answer = self._answers.pop(worker, None)
        if answer is not None:
            self._pool.drop(answer)

    # ------------------------------------------------------------------ pulls

    @property
    def size(self) -> int:
        """Elements of the vector, n + m."""
        return self._pool.size

    @property
    def learning_rate(self) -> float:
        """The step size of the next update, before the staleness policy."""
        return self._rule.learning_rate(self.version)

    @property
    def consistency(self) -> Consistency:
        """The mode, with its clocks."""
        return self._consistency

    @property
    def uncorrected(self) -> int:
        """Gradients that counted without their correction, because old weights were not kept."""
        return self._rule.uncorrected

    def pull(self, pin: int = 0, worker: int | None = None) -> tuple[Buffer, int]:
        """The committed buffer and its version; the caller holds it until `release`.

        Args:
            pin: The number of a pin, for what was committed when it was set.
            worker: Who will compute gradients from it.

        Raises:
            InvalidRequest: There is no such pin.
        """
        if pin and pin not in self._pins:
            raise InvalidRequest(
                f"weights must be pinned before they are pulled as pin {pin}; pinned are {[*self._pins]}."
            )
        buffer, version = self._pins[pin] if pin else (self._committed, self.version)
        if worker is not None and not pin and self._compensation.corrects and worker in self._outcomes:
            self._versions.pulled(worker, version, buffer)
        return self._pool.hold(buffer), version

    def answer(self, worker: int) -> tuple[Buffer, int]:
        """What the reply to a worker's last push carries, and the version: as `pull`, or weights of its own."""
        own = self._answers.get(worker)
        return (self._pool.hold(own), self.version) if own else self.pull(worker=worker)

    def release(self, buffer: Buffer) -> None:
        """Ends a hold that `pull` gave, of this shard or of the one that it has taken the place of."""
        buffer.pool.drop(buffer)

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
            InvalidRequest: The number is not one that may come now.
        """
        return self._outcomes.recorded(worker, incarnation, seq)

    def remembered(self, worker: int, incarnation: int, seq: int) -> Result | None:
        """What is known of a push; None if it or its worker is forgotten."""
        return self._outcomes.get(worker, incarnation, seq)

    @property
    def reads_once(self) -> bool:
        """Whether a push is read from its beginning to its end and not kept: then it may come in pieces."""
        return not self._consistency.buffers and self._rule.reads_once

    def push(self, push: Push, gradient: np.ndarray | ChunkedVector, owned: bool = True) -> Result:
        """Takes a gradient `float32[n + m]` (the last m: what to add to the state).

        Args:
            push: What the worker says of it.
            gradient: Not to be written to while this call lasts; nor afterwards, if it is `owned`. In pieces only if
                the shard `reads_once`.
            owned: Whether the shard may keep a reference; else it copies what it has to buffer.

        Returns:
            The outcome so far; a buffered push's final one goes to `on_outcome` and `recorded`.

        Raises:
            UnknownWorker: The worker is not a member, or this incarnation of it is not.
            InvalidRequest: Wrong length, seq 0 or no samples.
            FutureVersion: The base version has not been reached.
        """
        before = self.recorded(push.worker, push.incarnation, push.seq)
        return before if before is not None else self.accept(push, gradient, owned)

    def accept(self, push: Push, gradient: np.ndarray | ChunkedVector, owned: bool = True) -> Result:
        """As `push`, of a push of which nothing is `recorded`."""
        self._check(push, gradient)
        self._outcomes.arrived(push)
        if push.worker not in self._consistency.clocks:
            self.resume(push.worker)
        self._consistency.tick(push.worker)
        staleness = self.version - push.base_version
        with np.errstate(all="ignore"):
            reason = self._refuse(push, gradient, staleness)
            if not reason and not self._consistency.buffers:
                return self._apply_one(push, gradient, staleness)
        if reason:
            self._take_answer(push.worker)
            return self._conclude(push, Result(Outcome.DROPPED, self.version, staleness, reason=reason))
        assert isinstance(gradient, np.ndarray)
        buffered = Result(Outcome.BUFFERED, self.version, staleness)
        self._outcomes.remember(push, buffered)
        self._pending.append((push, gradient))
        self._senders[push.worker] = self._senders.get(push.worker, 0) + 1
        self._settle()
        if not owned and self._pending and self._pending[-1][0] is push:
            self._pending[-1] = (push, gradient.copy())
        return self.remembered(push.worker, push.incarnation, push.seq) or buffered

    def may_proceed(self, worker: int) -> bool:
        """Whether the worker's reply may leave: its next step may start, or it is no member any more."""
        return worker not in self._outcomes or self._consistency.may_proceed(worker, self._senders)

    @property
    def gate_state(self) -> tuple[int, int, int]:
        """While this is the same, no gate that was closed has opened."""
        return self.version if self._consistency.buffers else 0, self._consistency.minimum, self._moves

    def flush(self) -> None:
        """Applies the mean of what waits for more pushes: there will be none."""
        if self._pending:
            self._apply_several(in_worker_order([push for push, _ in self._pending]))

    def assign(self, weights: np.ndarray) -> None:
        """Commits other weights `float32[n + m]` as the next version; the optimizer's slots stay."""
        spare = self._pool.take()
        spare.array[:] = weights
        self._commit(spare)

    def pull_slot(self, name: str) -> tuple[Buffer, int]:
        """A copy of a slot of the optimizer, `float32[n + m]` with m zeros, and the version; held as by `pull`.

        Raises:
            InvalidRequest: The optimizer has no such slot.
        """
        slot, copy = self._optimizer.slot(name), self._pool.take()
        copy.array[: len(slot)], copy.array[len(slot) :] = slot, 0
        return copy, self.version

    def assign_slot(self, name: str, content: np.ndarray, step: int) -> None:
        """Sets a slot of the optimizer from `float32[n + m]`, and how many updates it has behind it.

        Raises:
            InvalidRequest: The optimizer has no such slot.
        """
        slot = self._optimizer.slot(name)
        slot[:] = content[: len(slot)]
        self._optimizer.step = step

    def check_generation(self, generation: int) -> None:
        """Raises Fenced unless the number is this life's."""
        if generation != self.generation:
            raise Fenced(
                f"a push must come from weights of generation {self.generation} of this shard; received one from "
                f"generation {generation}. Pull again and drop the gradient."
            )

    def _check(self, push: Push, gradient: np.ndarray | ChunkedVector) -> None:
        if push.samples < 1:
            raise InvalidRequest(
                f"a gradient must average over 1 or more samples; received {push.samples}. Set the header's samples."
            )
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

    def _refuse(self, push: Push, gradient: np.ndarray | ChunkedVector, staleness: int) -> str:
        if push.nonfinite or not math.isfinite(push.norm) or not _finite(gradient):
            return "nonfinite"
        if not self._refuses:
            return ""
        refused = self._consistency.refuse(staleness)
        return refused or self._compensation.refuse(staleness, self._consistency.live)

    # ------------------------------------------------------------------ the whole state

    @property
    def pending(self) -> list[Push]:
        """Pushes that count and wait to be part of an update."""
        return [push for push, _ in self._pending]

    def optimizer_state(self) -> dict[str, np.ndarray]:
        """A copy of every slot, `float32[n]`, and of `step`."""
        return self._optimizer.state()

    def restore(self, weights: np.ndarray, version: int, optimizer: Mapping[str, np.ndarray], generation: int) -> None:
        """Returns to an earlier state as another generation: no worker is a member, no push is remembered.

        Whoever holds a buffer keeps it.

        Args:
            weights: `float32[n + m]`.
            version: Of those weights.
            optimizer: Its `state`.
            generation: Of this life.

        Raises:
            ValueError: The state is another optimizer's.
        """
        self._optimizer.restore(optimizer)
        self._pending.clear()
        self._senders.clear()
        for worker in list(self._outcomes):
            self.leave(worker)
        for number in list(self._pins):
            self.unpin(number)
        spare = self._pool.take()
        spare.array[:] = weights
        self._pool.drop(self._committed)
        self._committed, self.version, self.generation = spare, version, generation

    # ------------------------------------------------------------------ updates

    def _settle(self) -> None:
        """Applies what the mode says is ready."""
        while self._pending:
            chosen = self._consistency.group([push for push, _ in self._pending], self._senders)
            if not chosen:
                return
            self._apply_several(chosen)

    def _apply_one(self, push: Push, payload: np.ndarray | ChunkedVector, staleness: int) -> Result:
        """One update from one push: w' = w − η·g into a spare buffer, swapped in."""
        spare, old = self._pool.take(), self._committed.array
        if self._consistency.payload == "replica":
            assert isinstance(payload, np.ndarray)
            self._take_answer(push.worker)
            answer = self._answers[push.worker] = self._pool.take()
            η = self._rule.elastic(payload, self.version, old, spare.array, answer.array)
        else:
            η = self._rule.one(push, payload, self.version, old, spare.array)
        self._commit(spare)
        return self._conclude(push, Result(Outcome.APPLIED, self.version, staleness, η))

    def _apply_several(self, chosen: list[int]) -> None:
        """One update from the mean of a group of pushes that wait."""
        group = [self._pending[index] for index in chosen]
        for index in sorted(chosen, reverse=True):
            del self._pending[index]
        for push, _ in group:
            self._senders[push.worker] -= 1
            if not self._senders[push.worker]:
                del self._senders[push.worker]
        spare, base = self._pool.take(), self.version
        with np.errstate(all="ignore"):
            rates = self._rule.several(group, base, self._committed.array, spare.array)
        self._commit(spare)
        for (push, _), η in zip(group, rates, strict=True):
            self._conclude(push, Result(Outcome.APPLIED, self.version, base - push.base_version, η))

    def _commit(self, spare: Buffer) -> None:
        self._pool.drop(self._committed)
        self._committed = spare
        self.version += 1

    def _conclude(self, push: Push, result: Result) -> Result:
        self._outcomes.remember(push, result)
        self.on_outcome(push, result)
        return result


def _finite(vector: np.ndarray | ChunkedVector) -> bool:
    """Whether every element is; their sum of squares tells, unless it overflows: only then is each looked at."""
    if isinstance(vector, ChunkedVector):
        return all(map(_finite, vector.arrays))
    if vector.size == 1:
        return math.isfinite(vector[0])
    return math.isfinite(vector.dot(vector)) or bool(np.isfinite(vector).all())
