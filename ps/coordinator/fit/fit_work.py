"""A script's calls of `fit`: its workers bring model, optimizer and data, with a barrier after every epoch.

The first worker to register for a call fixes layout and optimizer, worker 0 sets the weights, and when all workers have
passed the barrier at the end of the call, the next one may begin with others. A call is one generation of the shards.
Samples are leased if `fit` was given arrays or a `LeasedDataset`.

Workers learn of a change, such as the end of an epoch's samples, only when a checkpoint contains it: see
`fit_revisions`.

This module is pure: it does no I/O and reads no clock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest, JobConflict, LayoutMismatch
from downpour.protos.layout import Layout
from downpour.protos.sentences.sentence import sentence
from downpour.ps.coordinator.admission import check_data, check_fingerprints, check_frozen
from downpour.ps.coordinator.fit.fit_admission import (
    check_joins,
    check_turn,
    check_warm_start,
    check_weights,
    required_workers,
    settings_of_call,
    settings_of_fit,
)
from downpour.ps.coordinator.fit.fit_call import LEADER, FitCall
from downpour.ps.coordinator.fit.fit_leases import FitLeases
from downpour.ps.coordinator.fit.fit_optimizers import FitOptimizers
from downpour.ps.coordinator.fit.fit_record import FitRecord
from downpour.ps.coordinator.fit.fit_revisions import FitRevisions
from downpour.ps.coordinator.fit.fit_waits import FitWaits
from downpour.ps.coordinator.job import Job
from downpour.ps.coordinator.ledger import EpochLedger
from downpour.ps.coordinator.membership import Member
from downpour.ps.coordinator.phase import BEFORE_TRAINING, OVER, Phase
from downpour.ps.coordinator.work import Work, WorkProgress, WorkSummary


class FitWork(Work):
    """The work of one script, which is a sequence of calls of `fit`.

    Attributes:
        epochs_done: The number of complete epochs in all calls.
    """

    restores_state = True
    versions_increase = False
    records_leases = True
    records_generations = True
    progress_by_leases = False

    def __init__(self, job: Job) -> None:
        """Create the work of a script that has not called `fit` yet; see `Work`."""
        super().__init__(job)
        self.epochs_done, self._record = 0, FitRecord()
        self._call, self._optimizers = FitCall(job), FitOptimizers(job)
        self._starters = job.settings.workers
        self._leases, self._waits = FitLeases(job), FitWaits(job)
        self._revisions = FitRevisions(job)
        self._earlier: dict[int, pb.RegisterReply] = {}  # the replies to late workers, by the number of the call
        self._drain_requested = self._interrupted = False
        self._call_before: FitCall | None = None  # which was over when the job was asked to end

    @property
    def ledger(self) -> EpochLedger | None:
        """Return the leases of the current epoch; None if the workers divide their data among themselves."""
        return self._leases.ledger

    # ------------------------------------------------------------------ calls of fit

    @property
    def fit_call(self) -> int:
        """Return the number of the current call of `fit`, from 1; 0 before the first."""
        return self._call.number

    @property
    def decisions(self) -> Sequence[pb.Decision]:
        """Return the decisions on the epochs that are complete in the current call."""
        return self._call.decisions

    def may_register(self, request: pb.RegisterRequest) -> bool:
        """Return whether a worker may register: for the current call between two barriers, for the next if all left.

        Worker 0 may always return to the current call, because the others may be waiting for its decision.
        """
        if request.fit_call > self.fit_call:
            return not len(self.job.membership) and self._call.returning <= {request.worker}
        return request.in_fit or self._call.may_join or request.worker == LEADER

    @property
    def initialiser(self) -> int | None:
        """Return worker 0, which alone may have the slots of earlier calls; None for clients, which have none."""
        return None if self._call.independent else LEADER

    @property
    def epoch_begun(self) -> bool:
        """Return whether the epoch after those with a decision has begun."""
        return self._call.epoch_begun

    @property
    def starters(self) -> int:
        """Return how many workers to wait for: those that have ended the last call, as one that died may not return.

        A worker with a fixed part of the data is waited for in any case.
        """
        return self._starters

    @property
    def epoch_ending(self) -> bool:
        """Return whether the last epoch with a decision is at its end."""
        return self._call.epoch_ending

    @property
    def initial_epoch(self) -> int:
        """Return the number of the first epoch of the current call, which holds for all workers."""
        return self._record.initial_epoch

    def past_reply(self, request: pb.RegisterRequest) -> pb.RegisterReply | None:
        """Return the decisions of the call that a worker registers for, or its error, if that call is over.

        A worker that is still within the call, when a server has died, needs the weights at its end.
        """
        if not request.in_fit and request.HasField("worker"):
            self._call.returning.discard(request.worker)  # another process than in the checkpoint
        elif request.fit_call == self.fit_call and self._call.failure is None:
            return None
        if request.fit_call == self.fit_call and self._call.is_over:
            return self._reply_of(self._call)
        return self._earlier.get(request.fit_call)

    def _reply_of(self, call: FitCall) -> pb.RegisterReply:
        decisions, first = call.decisions, self._record.initial_epoch
        return pb.RegisterReply(
            fit_completed=True,
            decisions=decisions,
            failure=call.failure,
            initial_epoch=first,
            last=call.last,
            epoch_begun=call.epoch_begun,
        )

    def check_worker(self, request: pb.RegisterRequest, now: float) -> None:
        """Admit a worker to the current call of `fit`, or begin the next one with it.

        Raises:
            Unsupported: The worker does not belong to a script, or its optimizer is not supported.
            JobConflict: It skipped a call, or its optimizer differs from the others'.
        """
        check_turn(request, self.fit_call)
        if request.fit_call == self.fit_call + 1:
            self._begin_call(request, now)
            return
        self.check_call()
        check_joins(request, self._call.independent, self._optimizers.names)

    def _begin_call(self, request: pb.RegisterRequest, now: float) -> None:
        job, settings = self.job, settings_of_call(request, self.job.settings)
        required = required_workers(request.independent, request.data, settings.workers)
        if self._leases.is_warm_start:
            check_warm_start(settings, required)
        if self.fit_call:
            self._earlier[self.fit_call] = self._reply_of(self._call)
            job.begin_generation(job.generation + 1, now, next_call=True)
        self._record.begin(request.fit)
        self._starters = settings.workers if required else self._call.finishers or settings.workers
        call = FitCall(job, request.fit_call, required, request.independent, self._revisions.add)
        self._optimizers = FitOptimizers(job, request.optimizers)
        self._call, job.settings, job.resumed = call, settings, False
        self._leases.begin_call()
        job.layout, job.data, job.deadlines.lost_s = None, None, None
        job.phase, job.started_s = Phase.WAITING, None
        job.initialiser, job.initial_sent = self.initialiser, False  # None: the first client that is ready
        self._optimizers.send()

    def check_call(self) -> None:
        """Raise LayoutMismatch if a worker was refused because its data differ: no worker trains in this call."""
        if self._call.refusal is not None:
            raise self._call.refusal

    def check_model(self, layout: Layout, data: pb.DatasetInfo) -> None:
        """Check that a worker's model has the same weights as the others', and that it trains on the same data.

        Raises:
            LayoutMismatch: Shapes, frozen weights or data differ from the other workers'.
        """
        job = self.job
        check_weights(layout, job.layout, job.settings)
        try:
            check_fingerprints(data, job.data)
        except LayoutMismatch as error:
            if job.phase in BEFORE_TRAINING:
                self._call.refuse(error)  # the others would train on what this worker tests on
            raise
        check_frozen(data, job.data)
        check_data(data, job.data)

    def open(self) -> None:
        """Open the first epoch; its samples are leased if the workers have arrays or a `LeasedDataset`."""
        self._open_epoch()

    def joined(self, member: Member) -> None:
        """Record that a worker is back, or has come for the first time."""
        self._call.returning.discard(member.worker)

    def check_worker_added(self) -> None:
        """Raise InvalidRequest: a script's launcher starts all of its workers."""
        raise InvalidRequest(sentence("workers_of_script"))

    def trains(self, member: Member) -> None:
        """Let the others wait for a worker that has returned to an epoch in which it has its own part of the data."""
        if self.ledger is None and self._call.epoch_begun and self._call.may_join:
            self.job.set_resting(member, False)

    def left(self, member: Member, now: float) -> None:
        """Take back a worker's leases; the others no longer wait for it at a barrier, unless its part must be used."""
        self.release_leases(member)
        self._call.complete_barriers()
        self._waits.update(self._call, now)

    def pushed(self, worker: int, pushes: int) -> None:
        """Record the number of pushes of a worker so far."""
        self._waits.pushed(worker, pushes)

    def blocked(self, workers: Collection[int]) -> None:
        """Record all workers whose pushes wait for other workers now."""
        self._waits.blocked(workers)

    def overdue(self, now: float) -> list[tuple[int, float]]:
        """Return the workers that others wait for, at a barrier or in a push, without progress for too long."""
        return self._waits.overdue(now)

    def worker_failed(self, worker: int, error_type: str, text: str) -> None:
        """End the current call of `fit` on all workers with the error of one."""
        self._call.fail(worker, error_type, text)

    def shard_lost(self, shard: int, now: float) -> None:
        """Begin another generation, which continues from the last checkpoint once the shard is back."""
        job = self.job
        if job.settings.checkpoint_every == "off":
            job.fail(sentence("shard_lost_no_checkpoints", shard=str(shard)))
        elif self._drain_requested:
            job.fail(sentence("shard_lost_in_drain", shard=str(shard)))
        elif job.layout is not None:
            self.await_shard(shard, now)

    def set_rates(self, request: pb.SetLearningRatesRequest, now: float) -> None:
        """Set the learning rate of later updates.

        Raises:
            InvalidRequest: The request does not come from worker 0, or is not a valid table.
        """
        self._optimizers.set_rates(self.job.renew(request.session, now).worker, request.rates)

    # ------------------------------------------------------------------ leased samples

    def _open_epoch(self, decision: pb.Decision | None = None) -> None:
        self._revisions.begin_epoch()
        self._leases.open_epoch(len(self._call.decisions), decision)

    def next_task(
        self, member: Member, now: float, epoch: int | None = None, wanted: pb.LeaseRequest | None = None
    ) -> pb.Task:
        """Return the next samples of the epoch, or the request to wait; END if the epoch has none left.

        A worker asks ahead while it trains on a lease. If there is none, it asks again once it has used all of its own.
        The end is a revision, so that no worker is at the barrier when servers return to an earlier state of the epoch.

        Raises:
            InvalidRequest: No samples are leased in this call of `fit`.
        """
        wanted = wanted or pb.LeaseRequest()
        ledger, number = self._leases.of_worker(member, wanted.ahead), len(self._call.decisions)
        is_past = epoch is not None and epoch < number  # its session had ended
        if self.draining or self._call.stop_requested or is_past or (ledger.finished and self._end_of_samples()):
            return pb.Task(kind=pb.END)
        present = {each.worker for each in self.job.membership.members} | self._call.returning
        return self._leases.next_task(member, number, present, now, wanted)

    def _end_of_samples(self) -> bool:
        """Return whether workers may learn that all samples of the epoch are used."""
        return self._revisions.end_of_samples(self.job.membership.all_idle_but(self._call.arrived))

    def samples_reported(self, member: Member, epoch: int | None, uses: Iterable[pb.LeaseUse], now: float) -> None:
        """Mark samples as used that a worker has used without a push; a repetition changes nothing."""
        if epoch is None or epoch == len(self._call.decisions):
            self._leases.report(member, uses, now)

    def _check_all_used(self) -> None:
        """Fail the job if an epoch has ended with unused samples, though no worker requested its end."""
        ledger = self.ledger
        if ledger is None or not ledger.has_batches or self.draining or self._call.stop_requested or ledger.finished:
            return
        self.job.fail(sentence("samples_unused", unused=ledger.samples - ledger.used_total, samples=ledger.samples))

    def samples_used(self, worker: int, lease: int, epoch: int, start: int, stop: int, now: float) -> None:
        """Mark samples as used; a worker that waits for a lease and holds none rests."""
        self._leases.use(worker, lease, start, stop, now)

    # ------------------------------------------------------------------ barriers

    def meet(self, request: pb.BarrierRequest, now: float) -> pb.BarrierReply:
        """Record a worker's arrival at the barrier of an epoch or of the end of `fit`; a decision opens the next epoch.

        Raises:
            InvalidRequest: The worker is ahead of the others.
            JobConflict: The job is over.
        """
        job, epochs = self.job, len(self._call.decisions)
        if job.phase in OVER:
            raise JobConflict(f"the job has {job.phase}: {job.notes[-1] if job.notes else 'no reason given'}")
        member = job.renew(request.session, now)
        if self.ledger is not None and request.kind == pb.EPOCH_METRICS and request.epoch == epochs:
            self.ledger.take_back(member.worker)  # it was stopped before it used them
        if self.draining and request.kind in (pb.EPOCH_METRICS, pb.EPOCH_END):
            # A worker that has not learned of it would begin an epoch without samples.
            request.MergeFrom(pb.BarrierRequest(stop=True))
        reply = self._call.meet(member, request)
        if len(self._call.decisions) > epochs:
            self.epochs_done += 1
            self._check_all_used()
            self._record.add(self._call.decisions[-1].logs)
            self._open_epoch(self._call.decisions[-1])
        return reply if self.committed or reply.HasField("failure") else pb.BarrierReply()

    def is_leader(self, session: int) -> bool:
        """Return whether a session is that of worker 0."""
        leader = self.job.membership.get(LEADER)
        return leader is not None and leader.session == session

    def pinned(self, number: int, shard: int) -> None:
        """Record that a shard has pinned the weights of the current barrier."""
        self._call.pinned(number, shard)

    # ------------------------------------------------------------------ the end

    @property
    def draining(self) -> bool:
        """Return whether `fit` must end with the current batch."""
        return self._drain_requested or self.job.phase in OVER

    @property
    def stop_requested(self) -> bool:
        """Return whether a callback of some worker has requested that training stop."""
        return self._call.stop_requested

    def drain(self, reason: str, now: float, asked: bool = True) -> None:
        """End `fit` early; end the job if no worker is in it. A script that is stopped before `fit` is interrupted."""
        job = self.job
        if job.phase in OVER:
            return
        self._interrupted |= asked and not self._call.number
        if len(job.membership):
            if not self._drain_requested:
                job.notes.append(sentence("draining", reason=reason))
                self._call_before = self._call if self._call.is_over else None
            self._drain_requested = True
            self._interrupted |= not self._call.is_over
        else:
            job.phase = Phase.ENDED

    def interrupt(self) -> None:
        """Record that the script has not ended by itself, so that its run can be resumed."""
        self._interrupted = True

    def tick(self, now: float) -> None:
        """Fail the job if a worker without which `fit` cannot end was lost and does not return in time."""
        if self.job.phase in OVER:
            return
        self._waits.limit_returns(self._call, now)
        self._waits.update(self._call, now)
        failure = self._waits.failure(now)
        if failure is not None:
            self.job.fail(failure)

    # ------------------------------------------------------------------ checkpoints

    @property
    def checkpointable(self) -> bool:
        """Return whether a call of `fit` has begun, and checkpoints are taken."""
        return self._revisions.enabled

    @property
    def revision(self) -> int:
        """Return the number of changes so far that workers learn."""
        return self._revisions.number

    @property
    def committed(self) -> bool:
        """Return whether a checkpoint contains all revisions."""
        return self._revisions.committed

    def commit(self, revision: int) -> None:
        """Record that a checkpoint contains the changes up to a revision, or that none could be written."""
        self._revisions.commit(revision)

    @property
    def awaits_slots(self) -> bool:
        """Return whether worker 0 has yet to send the slots, which follow the weights."""
        return self.job.initialiser is not None and not self.job.initial_sent

    @property
    def completed_call(self) -> int:
        """Return the number of the current call of `fit` if it is complete, else 0."""
        return self._call.number if self._call.last is not None else 0

    def state(self) -> bytes:
        """Return the state of all calls, as a serialised `FitState`."""
        job = self.job
        assert job.layout is not None and job.data is not None
        state = pb.FitState(
            layout=job.layout.to_proto(),
            data=job.data,
            optimizers=self._optimizers.specs,
            epochs_done=self.epochs_done,
            earlier=self._earlier,
            revision=self._revisions.number,
            workers={member.worker for member in job.membership.members} | self._call.returning,
        )
        self._record.put_state(state)
        self._call.put_state(state, drained=self._drain_requested and self._call is not self._call_before)
        self._leases.put_state(state)
        return state.SerializeToString()

    def reset(self) -> None:
        """Drop all calls of `fit`: those of a checkpoint follow, or the script's first one begins again."""
        job = self.job
        job.layout, job.data = None, None
        self.epochs_done, self._record, self._leases = 0, FitRecord(), FitLeases(job)
        self._call, self._earlier, self._optimizers = FitCall(job), {}, FitOptimizers(job)
        self._revisions = FitRevisions(job)
        self._waits.restart()

    def restore_state(self, state: pb.FitState) -> None:
        """Continue from the state of a checkpoint; `Coordinator.restored` must follow.

        Raises:
            ValueError: The ledger cannot have been in that state.
            Unsupported: The servers do not have the optimizers.
        """
        job = self.job
        job.settings = settings_of_fit(state.optimizers, state.fit, job.settings)
        job.layout, job.data, job.initialiser = Layout.from_proto(state.layout), state.data, None
        self._optimizers, self._record = FitOptimizers(job, state.optimizers), FitRecord.restored(state)
        required = required_workers(state.independent, state.data, job.settings.workers)
        self._revisions = FitRevisions(job, state.revision)
        self._call = FitCall.restored(job, state, required, self._revisions.add)
        self._earlier = dict(state.earlier)
        self.epochs_done = state.epochs_done
        self._waits.restart()
        self._leases.restore(state, len(self._call.decisions))
        self._revisions.begin_epoch(used=self.ledger is not None and self.ledger.finished)
        self._optimizers.send(restored=True)
        job.send(layout=state.layout)

    def summary(self) -> WorkSummary:
        """Return what the job's summary states about the script."""
        record, data = self._record, self.job.data
        # Of data that are batched already, leases count batches; the pushes state the samples.
        counts_batches = data is not None and data.batch_samples == 1 and not record.batch_size
        samples = None if counts_batches else self._leases.samples_used or None
        return WorkSummary(
            record.planned or None, self.epochs_done, record.batch_size, samples, self._interrupted, record.history
        )

    def progress(self) -> WorkProgress:
        """Return the place that the current call of `fit` has reached."""
        return self._record.progress(len(self._call.decisions))

    @property
    def counts_accuracy(self) -> bool:
        """Return False: a script's accuracy is that of its logs."""
        return False

    def newest_results(self) -> tuple[int, Mapping[str, float]]:
        """Return the number of complete epochs and the logs of the newest one by name."""
        if not self._call.decisions:
            return 0, {}
        return self.epochs_done, {f"epoch/{name}": value for name, value in self._call.decisions[-1].logs.items()}
