"""One shard of the weights: a pure state machine without I/O, locks or a clock.

The server, the tests, the simulator and the replay drive this same class.

    shard = Shard(np.zeros(3, np.float32), Optimizer("sgd", Hyperparameters(), 3), consistency_of("async"))
    shard.join(worker=0, incarnation=1)
    buffer, version = shard.pull()
    result = shard.push(Push(worker=0, incarnation=1, seq=1, base_version=version), np.ones(3, np.float32))
    shard.release(buffer)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from downpour.protos.chunked_vector import ChunkedVector
from downpour.protos.errors import InvalidRequest
from downpour.ps.core.apply import DEFAULT_OPTIONS, Update, UpdateOptions
from downpour.ps.core.buffers import Buffer, Pool, Versions
from downpour.ps.core.committed_weights import CommittedWeights
from downpour.ps.core.consistency_base import Consistency, in_worker_order
from downpour.ps.core.dedup import PushHistory
from downpour.ps.core.optimizer import Optimizer
from downpour.ps.core.push import Outcome, Push, Result, check_generation, check_push, is_finite
from downpour.ps.core.staleness import Compensation


class Shard(CommittedWeights):
    """The weights, their version, the optimizer's slots and the outcomes of recent pushes, as one atomic state.

    Attributes:
        generation: The generation of the shard: it grows when the shard is restored from a checkpoint.
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
        options: UpdateOptions = DEFAULT_OPTIONS,
    ) -> None:
        """Commit the initial vector as version 0.

        Args:
            initial: `float32[n + m]`: the trained weights, then the state that gradients do not train.
            optimizer: The optimizer of the n trained weights.
            consistency: The consistency mode.
            compensation: The compensation of staleness (default: none).
            on_outcome: A callback that receives every final outcome.
            generation: The generation of the shard.
            pool: The pool of buffers `float32[n + m]` (default: on the heap).
            options: The options of the updates.
        """
        super().__init__(initial, optimizer, pool)
        self.generation = generation
        self._on_outcome = on_outcome
        self._adopt(consistency, compensation or Compensation())
        kept = options.version_memory_bytes // (4 * len(initial))
        self._versions = Versions(self._pool, kept, options.version_depth)
        self._rule = Update(optimizer, consistency, self._compensation, self._versions.get, options)
        self._pending: list[tuple[Push, np.ndarray]] = []
        self._senders: dict[int, int] = {}  # number of pending pushes by worker
        self._moves = 0
        self._outcomes = PushHistory()

    def _adopt(self, consistency: Consistency, compensation: Compensation) -> None:
        self._consistency, self._compensation = consistency, compensation
        bases = (Consistency.refuse, Compensation.refuse)
        self._refuses = (type(consistency).refuse, type(compensation).refuse) != bases

    def reconfigure(
        self, consistency: Consistency, compensation: Compensation, learning_rate: float | None = None
    ) -> None:
        """Change the mode, the compensation and the learning rate of all later pushes.

        Buffered pushes are applied first, as by `flush`, and the clocks of all live workers begin at 0. With several
        shards, all must have received the same pushes.

        Args:
            consistency: The new mode, without live workers.
            compensation: The new compensation.
            learning_rate: The new learning rate before schedule and compensation; None to keep it.
        """
        self.flush()
        for worker in self._consistency.clocks:
            consistency.join(worker)
        if not compensation.corrects:  # otherwise gradients that are under way need the old weights
            for worker in self._outcomes:
                self._versions.leave(worker)
        self._adopt(consistency, compensation)
        self._rule.adopt(consistency, compensation)
        if learning_rate is not None:
            self._optimizer.set_learning_rate(learning_rate)
        self._moves += 1

    def observe(self, on_outcome: Callable[[Push, Result], None]) -> None:
        """Pass every final outcome to `on_outcome` from now on, instead of the present callback."""
        self._on_outcome = on_outcome

    def join(self, worker: int, incarnation: int, resting: bool = False) -> None:
        """Admit an incarnation of a worker. Older incarnations of the same worker are fenced from now on."""
        self._outcomes.join(worker, incarnation)
        self._forget(worker)
        if resting:
            self.rest(worker)
        else:
            self.resume(worker)

    def leave(self, worker: int) -> None:
        """Remove a worker, and apply the pushes that waited only for it."""
        if self._outcomes.leave(worker):
            self._forget(worker)
            self._compensation.leave(worker)
            self.rest(worker)

    def rest(self, worker: int) -> None:
        """Mark a worker that has no data at present: no worker waits for it until it pushes or resumes."""
        self._consistency.leave(worker)
        self._moves += 1
        self._settle()

    def resume(self, worker: int) -> None:
        """Mark a worker that has data again. Its clock starts at the smallest one."""
        if worker not in self._consistency.clocks:
            self._consistency.join(worker)
            self._moves += 1

    def _forget(self, worker: int) -> None:
        self._versions.leave(worker)
        self._drop_replica(worker)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next update, before the compensation of staleness."""
        return self._rule.learning_rate(self.version)

    @property
    def consistency(self) -> Consistency:
        """The consistency mode, with its clocks."""
        return self._consistency

    @property
    def uncorrected(self) -> int:
        """How many gradients were applied without their correction, because old weights were not kept."""
        return self._rule.uncorrected

    def pull(self, pin: int = 0, worker: int | None = None) -> tuple[Buffer, int]:
        """Return the committed buffer and its version. The caller holds the buffer until `release`.

        Args:
            pin: The number of a pinned version; 0 stands for the committed one.
            worker: The worker that will compute gradients from it.

        Raises:
            InvalidRequest: No version is pinned under this number.
        """
        buffer, version = self._pinned(pin) if pin else (self._committed, self.version)
        if worker is not None and not pin and self._compensation.corrects and worker in self._outcomes:
            self._versions.pulled(worker, version, buffer)
        return self._pool.hold(buffer), version

    def answer(self, worker: int) -> tuple[Buffer, int]:
        """Return the weights for the reply to a worker's last push, held as by `pull`, and their version.

        With elastic averaging these are the worker's own weights, moved towards those of the shard.
        """
        own = self._replicas.get(worker)
        return (self._pool.hold(own), self.version) if own else self.pull(worker=worker)

    def recorded(self, worker: int, incarnation: int, seq: int) -> Result | None:
        """Return the outcome of a push that arrived before; None if it is new.

        Raises:
            UnknownWorker: This incarnation of the worker is not a member.
            InvalidRequest: The sequence number is neither new nor that of a recent push.
        """
        return self._outcomes.recorded(worker, incarnation, seq)

    def remembered(self, worker: int, incarnation: int, seq: int) -> Result | None:
        """Return the recorded outcome of a push, or None."""
        return self._outcomes.get(worker, incarnation, seq)

    @property
    def reads_once(self) -> bool:
        """Whether a gradient is read once, from beginning to end, and not kept. It may then be a ChunkedVector."""
        return not self._consistency.buffers and self._rule.reads_once

    def push(self, push: Push, gradient: np.ndarray | ChunkedVector, owned: bool = True) -> Result:
        """Process a push: apply, buffer or drop it, or return the recorded outcome of a duplicate.

        Args:
            push: The description of the push.
            gradient: `float32[n + m]`, or without the elements of tensors that the push does not cover; the last m
                elements are added to the state. It must not change during the call, nor afterwards if it is `owned`.
                A ChunkedVector only if the shard `reads_once`.
            owned: Whether the shard may keep a reference; otherwise it copies what it buffers.

        Returns:
            The outcome so far. The final outcome of a buffered push goes to `on_outcome` and `recorded`.

        Raises:
            UnknownWorker: This incarnation of the worker is not a member.
            InvalidRequest: The gradient has the wrong length, `seq` is 0, or there are no samples.
            FutureVersion: The shard has not reached the base version.
        """
        before = self.recorded(push.worker, push.incarnation, push.seq)
        return before if before is not None else self.accept(push, gradient, owned)

    def accept(self, push: Push, gradient: np.ndarray | ChunkedVector, owned: bool = True) -> Result:
        """Process a push as `push` does, given that `recorded` returned None for it.

        An update is written to a spare buffer, which is then committed: w' = w − η·g.
        """
        check_push(push, gradient, self._pushed_size(push.tensors) if push.tensors else self._pool.size, self.version)
        self._outcomes.arrived(push)
        if push.worker not in self._consistency.clocks:
            self.resume(push.worker)
        self._consistency.tick(push.worker)
        staleness = self.version - push.base_version
        with np.errstate(all="ignore"):
            if reason := self._refuse(push, gradient, staleness):
                self._drop_replica(push.worker)
                return self._conclude(push, Result(Outcome.DROPPED, self.version, staleness, reason=reason))
            if self._consistency.buffers:
                return self._buffer(push, gradient, staleness, owned)
            spare, old = self._pool.take(), self._committed.array
            try:
                if self._consistency.payload == "replica":
                    η = self._elastic(push, gradient, spare)
                else:
                    η = self._rule.one(push, gradient, self.version, old, spare.array)
            except BaseException:
                self._abandon(spare, [push])
                raise
            self._commit(spare)
            return self._conclude(push, Result(Outcome.APPLIED, self.version, staleness, η))

    def covered(self, bitmap: bytes) -> int:
        """Return the number of trained elements in a push whose header has `bitmap`.

        Raises:
            InvalidRequest: The bitmap does not fit the layout.
        """
        return self._optimizer.coverage(bitmap).size if bitmap else self._optimizer.size

    def _pushed_size(self, bitmap: bytes) -> int:
        if self._consistency.payload != "gradient":
            raise InvalidRequest(
                f"a push of some tensors must be a gradient; received one in a mode whose workers push a "
                f"{self._consistency.payload}. Use a mode whose workers push gradients, such as async or bsp."
            )
        return self.covered(bitmap) + self._pool.size - self._optimizer.size

    def may_proceed(self, worker: int) -> bool:
        """Return whether the reply to a worker may be sent: it may start its next step, or is no longer a member."""
        return worker not in self._outcomes or self._consistency.may_proceed(worker, self._senders)

    @property
    def gate_state(self) -> tuple[int, int, int]:
        """A value that changes whenever `may_proceed` may have become true for a worker."""
        return self.version if self._consistency.buffers else 0, self._consistency.minimum, self._moves

    def flush(self) -> None:
        """Apply the mean of the buffered pushes, given that no more will arrive."""
        if self._pending:
            self._apply_several(in_worker_order([push for push, _ in self._pending]))

    def check_generation(self, generation: int) -> None:
        """Raise Fenced unless the number is the generation of this shard."""
        check_generation(generation, self.generation)

    def _refuse(self, push: Push, gradient: np.ndarray | ChunkedVector, staleness: int) -> str:
        if push.nonfinite or not math.isfinite(push.norm) or not is_finite(gradient):
            return "nonfinite"
        if not self._refuses:
            return ""
        refused = self._consistency.refuse(staleness)
        return refused or self._compensation.refuse(staleness, self._consistency.live)

    @property
    def pending(self) -> list[Push]:
        """The buffered pushes, which wait to be part of an update."""
        return [push for push, _ in self._pending]

    def restore(self, weights: np.ndarray, version: int, optimizer: Mapping[str, np.ndarray], generation: int) -> None:
        """Return to an earlier state as a new generation, without members and recorded pushes.

        Buffers that are held stay valid.

        Args:
            weights: `float32[n + m]`.
            version: The version of these weights.
            optimizer: The `optimizer_state` of that version.
            generation: The new generation.

        Raises:
            ValueError: The state belongs to another optimizer.
        """
        self._optimizer.restore(optimizer)
        self._pending.clear()
        self._senders.clear()
        for worker in list(self._outcomes):
            self.leave(worker)
        self.unpin_all()
        self.assign(weights)
        self.version, self.generation = version, generation

    def _settle(self) -> None:
        """Apply every group of pushes that the mode says is complete."""
        while self._pending:
            chosen = self._consistency.group([push for push, _ in self._pending], self._senders)
            if not chosen:
                return
            self._apply_several(chosen)

    def _buffer(self, push: Push, gradient: np.ndarray | ChunkedVector, staleness: int, owned: bool) -> Result:
        """Keep a push until its group is complete."""
        assert isinstance(gradient, np.ndarray)
        buffered = Result(Outcome.BUFFERED, self.version, staleness)
        self._outcomes.remember(push, buffered)
        self._pending.append((push, gradient))
        self._senders[push.worker] = self._senders.get(push.worker, 0) + 1
        self._settle()
        if not owned and self._pending and self._pending[-1][0] is push:
            self._pending[-1] = (push, gradient.copy())
        return self.remembered(push.worker, push.incarnation, push.seq) or buffered

    def _elastic(self, push: Push, own: np.ndarray | ChunkedVector, spare: Buffer) -> float:
        """Write to a spare buffer the weights moved towards those of a worker, and keep the worker's new ones."""
        assert isinstance(own, np.ndarray)
        self._drop_replica(push.worker)
        replica = self._replicas[push.worker] = self._pool.take()
        return self._rule.elastic(push, own, self.version, self._committed.array, spare.array, replica.array)

    def _apply_several(self, chosen: list[int]) -> None:
        """Make an update from the mean of a group of pending pushes."""
        group = [self._pending[index] for index in chosen]
        for index in sorted(chosen, reverse=True):
            del self._pending[index]
        for push, _ in group:
            self._senders[push.worker] -= 1
            if not self._senders[push.worker]:
                del self._senders[push.worker]
        spare, base = self._pool.take(), self.version
        try:
            with np.errstate(all="ignore"):
                rates = self._rule.several(group, base, self._committed.array, spare.array)
        except BaseException:
            self._abandon(spare, [push for push, _ in group])
            raise
        self._commit(spare)
        for (push, _), η in zip(group, rates, strict=True):
            self._conclude(push, Result(Outcome.APPLIED, self.version, base - push.base_version, η))

    def _abandon(self, spare: Buffer, pushes: list[Push]) -> None:
        """Return the buffer of an update that failed, and give its pushes an outcome: they are dropped as `failed`."""
        self._pool.drop(spare)
        for push in pushes:
            self._drop_replica(push.worker)
            self._conclude(push, Result(Outcome.DROPPED, self.version, self.version - push.base_version, 0.0, "failed"))

    def _conclude(self, push: Push, result: Result) -> Result:
        self._outcomes.remember(push, result)
        self._on_outcome(push, result)
        return result
