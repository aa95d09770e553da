"""Grants leases to the workers of a script, and records the order and the sizes of the grants for replay."""

from __future__ import annotations

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.system import clock
from downpour.ps.coordinator.coordinator import Coordinator
from downpour.ps.trace.call_log import NO_EPOCH, Call, CallLog, lease_seq
from downpour.ps.trace.call_order import CallOrder


class RecordedLeases:
    """The tasks of workers; the leases of a script are part of the recorded calls on shard 0.

    Attributes:
        follows: Whether leases are granted in the order of a run that is replayed.
    """

    def __init__(self, coordinator: Coordinator, calls: CallLog) -> None:
        """Create the tasks of a job.

        Args:
            coordinator: The coordinator of the job.
            calls: The calls on shard 0.
        """
        self._coordinator, self._calls = coordinator, calls
        self.follows = isinstance(calls, CallOrder)

    def next_task(self, request: pb.LeaseRequest) -> pb.Task:
        """Return a worker's next task, or the request to wait; raise what `Coordinator.next_task` raises."""
        epoch = request.epoch if request.HasField("epoch") else None
        calls, coordinator, now = self._calls, self._coordinator, clock.monotonic()
        if isinstance(calls, CallOrder) and calls.on and not coordinator.work.draining:
            member = coordinator.job.renew(request.session, now)
            if calls.lease_waits(member.worker, NO_EPOCH if epoch is None else epoch):
                return pb.Task(kind=pb.WAIT)
            request.samples = calls.next_lease_samples(member.worker)
        task = coordinator.next_task(request.session, now, epoch, request)
        if task.kind == pb.TRAIN and coordinator.work.records_leases:
            member = coordinator.job.membership.of_session(request.session)
            seq = lease_seq(NO_EPOCH if epoch is None else task.epoch, task.lease)
            calls.add(Call.LEASE, member.worker, member.incarnation, seq)
            # It depends on when the workers stated how many batches they add up for a push.
            calls.add(Call.LEASE_SIZE, member.worker, member.incarnation, task.stop - task.start)
        return task
