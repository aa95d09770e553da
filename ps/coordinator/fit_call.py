"""One call of a script's `fit`: its barriers and the decisions of worker 0.

This module is pure: it does no I/O and reads no clock.
"""

from __future__ import annotations

from collections.abc import Mapping

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest, LayoutMismatch
from downpour.ps.coordinator.epoch_barrier import EpochBarrier
from downpour.ps.coordinator.job import Job
from downpour.ps.coordinator.membership import Member
from downpour.ps.coordinator.work import WorkProgress

LEADER = 0  # the worker whose callbacks run


class FitRecord:
    """What a script's calls of `fit` train and have reached, for reports.

    Attributes:
        planned: The number of epochs of all calls so far; None if that of one is not known.
        history: The logs of every complete epoch of all calls, by name.
    """

    def __init__(self) -> None:
        """Build the record of a script that has not called `fit` yet."""
        self.planned: int | None = 0
        self.history: list[dict[str, float]] = []
        self._fit = pb.FitDescription()

    @property
    def batch_size(self) -> int | None:
        """Return the number of samples in a batch of the current call, or None if it is not known."""
        return self._fit.batch_size or None

    def begin(self, fit: pb.FitDescription) -> None:
        """Begin the next call."""
        self._fit = fit
        known = self.planned is not None and fit.epochs
        self.planned = (self.planned or 0) + max(0, fit.epochs - fit.initial_epoch) if known else None

    def add(self, logs: Mapping[str, float]) -> None:
        """Add the logs of an epoch that is complete."""
        self.history.append(dict(sorted(logs.items())))

    def progress(self, complete: int) -> WorkProgress:
        """Return the place that the current call has reached, of which some epochs are complete."""
        fit = self._fit
        return WorkProgress(
            epoch=fit.initial_epoch + complete,
            epochs=fit.epochs,
            batch_size=fit.batch_size,
            remaining_from=fit.initial_epoch,
            samples_per_epoch=fit.steps_per_epoch * fit.batch_size,
            metrics=self.history[-1] if complete else {},
        )


class FitCall:
    """A call of `fit`, with a barrier of all workers after every epoch and at the end.

    Attributes:
        number: The number of the call in the script, counted from 1; 0 before the first call, and counts as over.
        independent: Whether its workers are clients that meet at no barrier, so that none of them is the leader.
        decisions: The decisions of worker 0 on the complete epochs.
        is_over: Whether worker 0 has sent its decision at the last barrier.
        stop_requested: Whether a callback of some worker has requested that training stop.
        refusal: The error of a worker whose data differ from the others', for all workers; None if there is none.
    """

    def __init__(self, job: Job, number: int = 0, independent: bool = False) -> None:
        """Create a call without complete epochs.

        Args:
            job: The state of the job.
            number: The number of the call, counted from 1; 0 before the first call.
            independent: Whether its workers meet at no barrier.
        """
        self._job, self.number, self.independent = job, number, independent
        self.decisions: list[pb.Decision] = []
        self.is_over, self.stop_requested = not number, False
        self._epoch_barrier, self._final_barrier = EpochBarrier(), EpochBarrier()
        self._pinned_shards: set[int] = set()
        self.refusal: LayoutMismatch | None = None

    @property
    def _pin_number(self) -> int:
        return len(self.decisions) + 1

    def refuse(self, error: LayoutMismatch) -> None:
        """Refuse the call to all workers, because the data of one differ from the others'."""
        self.refusal = error

    def meet(self, member: Member, request: pb.BarrierRequest) -> pb.BarrierReply:
        """Record a worker's arrival at the barrier of an epoch, or of the end of `fit`; a repetition changes nothing.

        Raises:
            InvalidRequest: The worker is ahead of the others.
        """
        epoch = len(self.decisions)
        if not request.end_of_fit and request.epoch < epoch:
            return pb.BarrierReply(complete=True, decision=self.decisions[request.epoch])
        if not request.end_of_fit and request.epoch > epoch:
            raise InvalidRequest(
                f"the workers are at the barrier of epoch {epoch}; received epoch {request.epoch}. Take part in each."
            )
        barrier = self._final_barrier if request.end_of_fit else self._epoch_barrier
        barrier.arrive(member.worker, request.values)
        self.stop_requested |= request.stop
        self._job.set_resting(member)
        self.complete_barriers()
        if request.HasField("decision") and barrier.sums is not None and member.worker == LEADER:
            self._decide(barrier, request.decision)
        return pb.BarrierReply(
            complete=barrier.sums is not None and self._pinned_shards >= set(self._job.shards),
            sums=barrier.sums or (),
            pin=self._pin_number,
            decision=barrier.decision,
        )

    def complete_barriers(self) -> None:
        """Complete the barriers at which all live workers have arrived, and pin the weights of that moment."""
        live = [member.worker for member in self._job.membership.members]
        for barrier in (self._epoch_barrier, self._final_barrier):
            if barrier.complete(live):
                self._pinned_shards = set()
                self._job.send(flush=True)
                self._job.send(pin=self._pin_number)

    def pinned(self, number: int, shard: int) -> None:
        """Record that a shard has pinned the weights of the current barrier."""
        if number == self._pin_number:
            self._pinned_shards.add(shard)

    def _decide(self, barrier: EpochBarrier, decision: pb.Decision) -> None:
        barrier.decision = decision
        self._job.send(unpin=self._pin_number)
        if barrier is self._final_barrier:
            self.is_over = True
            return
        self.decisions.append(decision)
        self._epoch_barrier, self.stop_requested = EpochBarrier(), False
        for member in self._job.membership.members:
            member.resting = not member.warm
        self._job.send_view()
