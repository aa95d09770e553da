"""One call of a script's `fit`: its barriers, the decisions of worker 0, and the error that ended it.

This module is pure: it does no I/O and reads no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, cast

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest, LayoutMismatch
from downpour.ps.coordinator.fit.epoch_barrier import EpochBarrier
from downpour.ps.coordinator.job import Job
from downpour.ps.coordinator.membership import Member

LEADER = 0  # the worker whose decisions hold for all
KEPT_BARRIERS = 6  # passed barriers in a checkpoint; a live worker is behind by fewer


class Place(NamedTuple):
    """A barrier of a call of `fit`; places are ordered as workers pass them.

    Attributes:
        epoch: The epoch of the call, from 0.
        kind: The barrier within the epoch, of `pb.BarrierKind`.
    """

    epoch: int
    kind: int

    @property
    def next(self) -> Place:
        """Return the barrier that follows while `fit` continues."""
        if self.kind == pb.EPOCH_END:
            return Place(self.epoch + 1, pb.EPOCH_BEGIN)
        return Place(self.epoch, self.kind + 1)

    def __str__(self) -> str:
        """Return the place as a phrase for a message."""
        return f"{pb.BarrierKind.Name(self.kind)} of epoch {self.epoch}"


class FitCall:
    """A call of `fit`, with three barriers of all workers in every epoch and one at the end.

    Attributes:
        number: The number of the call in the script, counted from 1; 0 before the first call, and counts as over.
        independent: Whether its workers are clients that meet at no barrier, so that none of them is the leader.
        decisions: The decisions of worker 0 on the epochs whose metrics are complete.
        is_over: Whether worker 0 has sent its decision at the last barrier, or the call has failed.
        stop_requested: Whether a callback of some worker has requested that training stop.
        failure: The error of a worker that has ended the call; None if there is none.
        refusal: The error of a worker whose data differ from the others', for all workers; None if there is none.
        required: The workers that must have used their part of an epoch before it ends, whether they live or not.
        returning: The members of a checkpoint that have not registered again yet; the barriers wait for them.
    """

    def __init__(
        self,
        job: Job,
        number: int = 0,
        required: Collection[int] = (),
        independent: bool = False,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """Create a call without complete epochs.

        Args:
            job: The state of the job.
            number: The number of the call, counted from 1; 0 before the first call.
            required: The workers that each have a fixed part of the data; none if the samples are leased.
            independent: Whether its workers meet at no barrier.
            on_change: A callback for every change that workers must not learn before a checkpoint contains it.
        """
        self._job, self.number, self.independent = job, number, independent
        self.required, self.returning = frozenset(required), set[int]()
        self._on_change = on_change
        self.decisions: list[pb.Decision] = []
        self.is_over, self.stop_requested = not number, False
        self.failure: pb.FitFailure | None = None
        self.refusal: LayoutMismatch | None = None
        self._place = Place(0, pb.EPOCH_BEGIN)
        self._barrier, self._final_barrier = EpochBarrier(), EpochBarrier()
        self._passed: dict[Place, pb.Decision] = {}
        self._last_sums: Sequence[float] = ()  # of the barrier that was passed last; workers may still ask for them
        self._pinned_shards: set[int] = set()
        self._pins = False  # the weights of the current barrier are pinned, or about to be

    @property
    def epoch_begun(self) -> bool:
        """Return whether the epoch after those with a decision has begun."""
        return self._place.kind == pb.EPOCH_METRICS

    @property
    def finishers(self) -> int:
        """Return the number of workers that have arrived at the end of the call; 0 if it is not known."""
        return len(self._final_barrier.arrived)

    @property
    def epoch_ending(self) -> bool:
        """Return whether the last epoch with a decision is at its end, at which callbacks are called."""
        return self._place.kind == pb.EPOCH_END

    @property
    def may_join(self) -> bool:
        """Return whether a worker may join now: not while others are between the batches of two epochs."""
        return not self.epoch_ending and (not self.epoch_begun or self._barrier.sums is None)

    @property
    def last(self) -> pb.Decision | None:
        """Return the decision at the end of the call; None before."""
        return self._final_barrier.decision if self.is_over else None

    @property
    def arrived(self) -> set[int]:
        """Return the workers that have ended their batches of the current epoch."""
        return self._barrier.arrived if self.epoch_begun else set()

    def absent(self, present: Collection[int]) -> set[int]:
        """Return the workers that are not present though the call cannot end without them."""
        if self.is_over or self.independent or self.refusal:
            return set()
        needed = set(self.required) - self._barrier.arrived if self.epoch_begun else set()
        return (needed | {LEADER}) - set(present)

    def awaited(self, present: Collection[int]) -> set[int]:
        """Return the workers that are present and that others wait for at a barrier."""
        if self.is_over or self.independent:
            return set()
        barrier = self._final_barrier if self._final_barrier.arrived else self._barrier
        if barrier.sums is not None:
            return barrier.unvalidated(present) or {LEADER} & set(present)  # for its decision
        return set(present) - barrier.arrived if barrier.arrived else set()

    @property
    def _pin_number(self) -> int:
        return len(self.decisions) + 1

    def refuse(self, error: LayoutMismatch) -> None:
        """Refuse the call to all workers, because the data of one differ from the others'."""
        self.refusal = error

    def meet(self, member: Member, request: pb.BarrierRequest) -> pb.BarrierReply:
        """Record a worker's arrival at a barrier; a repetition changes nothing.

        Raises:
            InvalidRequest: The worker is ahead of the others.
        """
        is_final = request.kind == pb.FIT_END
        place = Place(request.epoch, request.kind)
        if not is_final and place in self._passed:
            if place.next == self._place and place.kind == pb.EPOCH_BEGIN:
                self._job.set_resting(member, False)
            sums = self._last_sums if place.next == self._place else ()
            return pb.BarrierReply(complete=True, decision=self._passed[place], sums=sums)
        if self.failure is not None:
            return pb.BarrierReply(failure=self.failure)
        if not is_final and place != self._place:
            raise InvalidRequest(f"the workers are at {self._place}; received {place}. Pass every barrier.")
        barrier = self._final_barrier if is_final else self._barrier
        barrier.arrive(member.worker, request.values, request.names)
        self.stop_requested |= request.stop
        if place.kind != pb.EPOCH_BEGIN:
            self._job.set_resting(member)
        if request.validated:
            barrier.validate(member.worker, request.validation)
        if request.HasField("decision") and member.worker == LEADER:
            barrier.propose(request.decision)
        live = {each.worker for each in self._job.membership.members}
        validated, validation = barrier.validation(live | self.returning)
        self.complete_barriers()
        pinned = request.kind != pb.EPOCH_METRICS or not self._pins or self._pinned_shards >= set(self._job.shards)
        return pb.BarrierReply(
            complete=barrier.sums is not None and pinned,
            sums=barrier.sums or (),
            names=barrier.names if barrier.sums is not None else (),
            pin=self._pin_number if self._pins else 0,
            decision=barrier.decision if barrier.sums is not None else None,
            validated=validated,
            validation=validation,
        )

    def complete_barriers(self) -> None:
        """Complete the barriers at which all workers have arrived; pin the weights at the end of an epoch's batches."""
        live = {member.worker for member in self._job.membership.members} | self.returning
        needed = live | self.required if self.epoch_begun else live
        if self._barrier.complete(needed) and self.epoch_begun:
            self._pinned_shards, self._pins = set(), True
            self._job.send(flush=True)
            self._job.send(pin=self._pin_number)
            self._on_change()
        self._final_barrier.complete(live)
        if self._final_barrier.passed and not self.is_over:
            self.is_over = True
            self._on_change()
        if self._barrier.passed:
            self._pass(self._barrier)

    def fail(self, worker: int, error_type: str, text: str) -> None:
        """End the call with the error of a worker; later errors, which follow from it, change nothing."""
        if self.failure is None and not (self.is_over or self.independent or self.refusal):
            self.failure = pb.FitFailure(worker=worker, error_type=error_type, text=text)
            self.is_over = self.stop_requested = True

    def _pass(self, barrier: EpochBarrier) -> None:
        decision = barrier.decision
        assert decision is not None
        if self._place.kind == pb.EPOCH_METRICS:
            if self._pins:
                self._job.send(unpin=self._pin_number)
                self._pins = False
            self.decisions.append(decision)
        elif self._place.kind == pb.EPOCH_END:
            decision.MergeFrom(pb.Decision(stop=self.stop_requested))  # keeps stop=True of worker 0
            self.decisions[-1] = decision  # its logs are those that the callbacks have left
        else:
            for member in self._job.membership.members:
                member.resting = not member.warm
            self._job.send_view()
        self._passed[self._place], self._last_sums = decision, self._barrier.sums or ()
        self._place, self._barrier = self._place.next, EpochBarrier()
        self._on_change()

    def pinned(self, number: int, shard: int) -> None:
        """Record that a shard has pinned the weights of the current barrier."""
        if number == self._pin_number:
            self._pinned_shards.add(shard)

    # ------------------------------------------------------------------ checkpoints

    def put_state(self, state: pb.FitState, drained: bool = False) -> None:
        """Write the call into the state of a checkpoint.

        Args:
            state: The state.
            drained: Whether the job was asked to end during the call, which a run that is resumed then continues.
        """
        state.fit_call, state.independent = self.number, self.independent
        state.decisions.extend(self.decisions)
        for place, decision in list(self._passed.items())[-KEPT_BARRIERS:]:
            state.passed.add(epoch=place.epoch, kind=place.kind, decision=decision)
        state.epoch, state.kind = self._place.epoch, cast(pb.BarrierKind, self._place.kind)
        if self._barrier.sums is not None:
            state.complete = True
            state.sums.extend(self._barrier.sums)
            state.names.extend(self._barrier.names)
        if drained and self.failure is None:
            for decision in (*state.decisions[-1:], *(each.decision for each in state.passed)):
                decision.ClearField("stop")
            return
        state.over, state.stop = self.is_over, self.stop_requested
        if self._final_barrier.decision is not None and self.is_over:
            state.last.CopyFrom(self._final_barrier.decision)
        if self.failure is not None:
            state.failure.CopyFrom(self.failure)

    @classmethod
    def restored(
        cls, job: Job, state: pb.FitState, required: Collection[int], on_change: Callable[[], None]
    ) -> FitCall:
        """Return the call in the state of a checkpoint; workers repeat what they had sent to the barrier."""
        call = cls(job, state.fit_call, required, state.independent, on_change)
        call.decisions = list(state.decisions)
        call._passed = {Place(each.epoch, each.kind): each.decision for each in state.passed}
        call._place = Place(state.epoch, state.kind)
        call._barrier = EpochBarrier.restored(state.sums if state.complete else None, names=state.names)
        call.is_over, call.stop_requested = state.over, state.stop
        call.failure = state.failure if state.HasField("failure") else None
        if state.HasField("last"):
            call._final_barrier = EpochBarrier.restored((), state.last)
        call.returning = set(state.workers)
        return call
