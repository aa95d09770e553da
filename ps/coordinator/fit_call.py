"""One call of a script's `fit`: its barriers and the decisions of worker 0.

This module is pure: it does no I/O and reads no clock.
"""

from __future__ import annotations

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest, LayoutMismatch
from downpour.ps.coordinator.epoch_barrier import EpochBarrier
from downpour.ps.coordinator.job import Job
from downpour.ps.coordinator.membership import Member

LEADER = 0  # the worker whose callbacks run


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
