"""The leases of the samples of a script's `fit`: one ledger for every epoch.

This module is pure: it does no I/O and reads no clock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest
from downpour.ps.coordinator.fit.fit_call import LEADER
from downpour.ps.coordinator.job import Job
from downpour.ps.coordinator.ledger import EpochLedger
from downpour.ps.coordinator.membership import Member
from downpour.ps.coordinator.push_groups import PushGroups
from downpour.ps.core.consistency import consistency_of
from downpour.ps.core.epoch_order import epoch_range


class FitLeases:
    """Leases the samples of the current epoch of `fit` to its workers.

    Attributes:
        ledger: The leases of the current epoch; None if the workers divide their data among themselves.
        samples_used: The number of samples used in all calls.
        batches_used: The number of batches of these.
    """

    def __init__(self, job: Job) -> None:
        """Create the leases of a script that has not called `fit` yet.

        Args:
            job: The state of the job.
        """
        self._job = job
        self.ledger: EpochLedger | None = None
        self.samples_used = self.batches_used = 0
        self._groups = PushGroups()

    def begin_call(self) -> None:
        """Begin a call of `fit`, in which no worker has added up gradients yet."""
        self._groups = PushGroups()

    def open_epoch(self, epoch: int, decision: pb.Decision | None) -> None:
        """Begin an epoch of a call, with the samples of the data or those that worker 0 has decided on.

        Args:
            epoch: The number of the epoch in the call, from 0.
            decision: The decision of worker 0 on the epoch before; None for the first epoch.
        """
        job, data = self._job, self._job.data
        assert data is not None
        samples, size = data.train_samples, data.lease_samples
        if decision is not None and decision.HasField("leases"):
            samples, size = decision.leases.samples, decision.leases.lease_samples
        elif data.batch_samples:
            used = epoch_range(samples, data.batch_samples, data.epoch_batches, epoch)
            samples = used.stop - used.start
        job.orphans.clear()
        self.ledger = self._new_ledger(epoch, samples, size) if size and samples else None
        if self.ledger is not None and self.ledger.parts == 1:
            # Reserved for worker 0, whose metrics need at least one batch.
            self.ledger.lease_to(LEADER, {LEADER}, samples=self._groups.needs(LEADER) * self._batch)
            leader = job.membership.get(LEADER)
            if leader is not None:
                leader.idle = False

    def _new_ledger(self, epoch: int, samples: int, lease_samples: int) -> EpochLedger:
        job, settings = self._job, self._job.settings
        batch = job.data.batch_samples if job.data is not None else 0
        parts = settings.workers if batch and consistency_of(settings.mode).fixed_assignment else 1
        guided = 0 if settings.lease_batches else settings.workers
        return EpochLedger(epoch, samples, lease_samples, batch, guided, parts)

    def of_worker(self, member: Member, ahead: bool) -> EpochLedger:
        """Return the ledger that a worker requests samples from; unless it asks ahead, it holds none any more.

        Raises:
            InvalidRequest: No samples are leased in this call of `fit`.
        """
        if self.ledger is None:
            raise InvalidRequest(
                "a lease must belong to data of known length, such as arrays or a LeasedDataset. Received: that of a "
                "worker whose data are divided in advance. Check that both sides run the same version."
            )
        if not ahead:
            if not member.idle:
                member.idle = True
                self.ledger.take_back(member.worker)
            self._job.step_deadlines.forget(member.worker)
        return self.ledger

    def next_task(
        self, member: Member, epoch: int, present: Collection[int], now: float, wanted: pb.LeaseRequest
    ) -> pb.Task:
        """Return a worker's next samples of an epoch, or the request to wait.

        Args:
            member: The worker.
            epoch: The number of the epoch in the call, from 0.
            present: The workers that take part in the call.
            now: The current time in seconds.
            wanted: What the worker asks for: whether it trains on an earlier lease meanwhile, and the size.
        """
        job, ledger = self._job, self.ledger
        assert ledger is not None
        self._groups.asked(member.worker, wanted.batches_to_push, wanted.batches_per_push)
        may_train = not job.paused and self._may_train(member)
        alone = {member.worker} if self.is_warm_start else present  # it uses the parts of the others as well
        lease = ledger.lease_to(member.worker, alone, self._groups, wanted.samples) if may_train else None
        if lease is None:
            if not wanted.ahead:
                job.set_resting(member)
            return pb.Task(kind=pb.WAIT)
        member.idle = False
        job.set_resting(member, False)
        if not wanted.ahead:
            job.step_deadlines.begin(member.worker, now)
        return pb.Task(
            kind=pb.TRAIN, lease=lease.number, epoch=epoch, start=lease.start, stop=lease.stop, parts=ledger.parts
        )

    @property
    def is_warm_start(self) -> bool:
        """Return whether the job has not used as many batches yet as one worker trains on alone."""
        return self.batches_used < self._job.settings.warm_start

    @property
    def _batch(self) -> int:
        data = self._job.data
        return max(1, data.batch_samples) if data is not None else 1

    def _may_train(self, member: Member) -> bool:
        """Return whether a worker may train now: during the warm start of the job, only one does."""
        members = self._job.membership.members
        return not self.is_warm_start or member.worker == min(each.worker for each in members)

    def use(self, worker: int, lease: int, start: int, stop: int, now: float) -> None:
        """Mark positions `[start, stop)` of a lease as used; a worker that waits for a lease and holds none rests."""
        assert self.ledger is not None
        self.ledger.use(lease, stop)
        self.samples_used += stop - start
        self.batches_used += -(-(stop - start) // self._batch)
        self._begin_step(worker, now)

    def _begin_step(self, worker: int, now: float) -> None:
        self._job.step_deadlines.end(worker, now)
        if self._job.membership.get(worker) is not None:
            self._job.step_deadlines.begin(worker, now)

    def report(self, member: Member, uses: Iterable[pb.LeaseUse], now: float) -> None:
        """Mark samples as used that a worker has used without a push, or free them; a repetition changes nothing."""
        for use in uses:
            lease = self.ledger.held_by(member.worker, use.lease) if self.ledger is not None else None
            if lease is None or not lease.next < use.stop <= lease.stop:
                continue
            if use.returned and self.ledger is not None:
                self.ledger.give_back(lease.number, use.stop)
                self._begin_step(member.worker, now)
            else:
                self.use(member.worker, lease.number, lease.next, use.stop, now)

    # ------------------------------------------------------------------ checkpoints

    def put_state(self, state: pb.FitState) -> None:
        """Write the leases into the state of a checkpoint."""
        state.samples_used, state.batches_used = self.samples_used, self.batches_used
        if self.ledger is not None:
            plan = pb.LeasePlan(samples=self.ledger.samples, lease_samples=self.ledger.lease_samples)
            state.leases.CopyFrom(plan)
            state.unused.extend(pb.SampleRange(epoch=e, start=a, stop=b) for e, a, b in self.ledger.unused())
            state.position_epoch, state.position = self.ledger.position

    def restore(self, state: pb.FitState, epoch: int) -> None:
        """Continue from the state of a checkpoint that was taken in an epoch of the call.

        Raises:
            ValueError: The ledger cannot have been in that state.
        """
        self.ledger, self.samples_used = None, state.samples_used
        self.batches_used = state.batches_used or self.samples_used // self._batch
        if state.HasField("leases"):
            self.ledger = self._new_ledger(epoch, state.leases.samples, state.leases.lease_samples)
            unused = [(span.epoch, span.start, span.stop) for span in state.unused]
            self.ledger.restore(unused, state.position_epoch, state.position)
