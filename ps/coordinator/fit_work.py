"""A script's calls of `fit`: its workers bring model, optimizer and data, with a barrier after every epoch.

The first worker to register for a call fixes layout and optimizer, worker 0 sets the weights, and when all workers have
passed the barrier at the end of the call, the next one may begin with others. A call is one generation of the shards.
Samples are leased if `fit` was given arrays or a `LeasedDataset`.

Workers that live continue in the same call after a server has died, so the servers must not return to a state before
what these workers know. A *revision* is a change that workers learn: that all samples of an epoch are used, that all
have arrived at a barrier, what worker 0 has decided there. A worker receives it only when a checkpoint contains it.

This module is pure: it does no I/O and reads no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest, JobConflict, LayoutMismatch, Unsupported
from downpour.protos.layout import Layout
from downpour.ps.config import ServerSettings
from downpour.ps.coordinator.admission import (
    check_data,
    check_fingerprints,
    check_frozen,
    check_layout,
    settings_with_optimizers,
)
from downpour.ps.coordinator.deadlines import BarrierDeadlines, FitAbsences
from downpour.ps.coordinator.fit_call import LEADER, FitCall, FitRecord
from downpour.ps.coordinator.job import Job
from downpour.ps.coordinator.ledger import EpochLedger
from downpour.ps.coordinator.membership import Member
from downpour.ps.coordinator.phase import BEFORE_TRAINING, OVER, Phase
from downpour.ps.coordinator.work import Work, WorkProgress, WorkSummary
from downpour.ps.core.consistency import consistency_of
from downpour.ps.core.epoch_order import epoch_range
from downpour.ps.core.schedules import check_rates

MAX_NAME = 100  # characters of a model's name in reports


class FitWork(Work):
    """The work of one script, which is a sequence of calls of `fit`.

    Attributes:
        epochs_done: The number of complete epochs in all calls.
    """

    is_script = True
    ledger: EpochLedger | None

    def __init__(self, job: Job) -> None:
        """Create the work of a script that has not called `fit` yet; see `Work`."""
        super().__init__(job)
        self.epochs_done, self._record = 0, FitRecord()
        self._optimizers = ""  # their names in the current call
        self._specs: list[pb.OptimizerSpec] = []  # of the current call, with the rates that were set last
        self._call = FitCall(job)
        self._revision = self._committed = 0
        self._return_by_s: float | None = None
        self._epoch_used = False  # the end of the current epoch's samples is a revision already
        self._earlier: dict[int, pb.RegisterReply] = {}  # what a late worker is told, by the number of the call
        self._drain_requested = self._interrupted = False
        self._absences = FitAbsences(job.settings.reconnect_s)
        self._barrier_deadlines = BarrierDeadlines()
        self._leased_samples_used = 0

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
            fit_completed=True, decisions=decisions, failure=call.failure, initial_epoch=first, last=call.last
        )

    def check_worker(self, request: pb.RegisterRequest, now: float) -> None:
        """Admit a worker to the current call of `fit`, or begin the next one with it.

        Raises:
            Unsupported: The worker does not belong to a script, or its optimizer is not supported.
            JobConflict: It skipped a call, or its optimizer differs from the others'.
        """
        if not request.fit_call or not request.optimizers:
            raise Unsupported("this server runs a script: start workers with `downpour run` or downpour.worker.fit.")
        if not self.fit_call <= request.fit_call <= self.fit_call + 1:
            raise JobConflict(
                f"a worker must register for call {self.fit_call} or {self.fit_call + 1} of fit; received call "
                f"{request.fit_call}. Run the same script everywhere."
            )
        if request.fit_call == self.fit_call + 1:
            if request.has_trained:
                raise JobConflict(
                    f"the servers must have a checkpoint of call {request.fit_call} of fit, which the worker has begun "
                    f"to train; the newest one is of call {self.fit_call}. Start the script again."
                )
            self._begin_call(request, now)
            return
        self.check_call()
        if request.independent != self._call.independent:
            raise JobConflict(
                "a job must have either clients of downpour.connect or workers that call fit. Received: both. "
                "Start another server for the clients."
            )
        if _names(request.optimizers) != self._optimizers:
            raise JobConflict(
                f"all workers must use the same optimizers, {self._optimizers}; received "
                f"{_names(request.optimizers)}. Run the same script everywhere."
            )

    def _begin_call(self, request: pb.RegisterRequest, now: float) -> None:
        job = self.job
        settings = settings_with_optimizers(job.settings, request.optimizers)
        settings = settings.model_copy(update={"model": request.fit.model[:MAX_NAME] or settings.model})
        layout = Layout.from_proto(request.layout)
        layout.cut(settings.shards)
        if max(tensor.flags.optimizer for tensor in layout.trained_tensors) >= len(request.optimizers):
            raise InvalidRequest(
                f"a tensor must refer to one of the {len(request.optimizers)} optimizers; received one that refers to "
                "another. Check that both sides run the same version."
            )
        tables = [spec.learning_rates for spec in request.optimizers]
        for table in tables:
            check_rates(table)
        if request.independent:
            _check_every_gradient(settings)
        self._optimizers = _names(request.optimizers)
        if self.fit_call:
            self._earlier[self.fit_call] = self._reply_of(self._call)
            job.begin_generation(job.generation + 1, now, next_call=True)
        self._record.begin(request.fit)
        required = _required(request.independent, request.data, settings.workers)
        call = FitCall(job, request.fit_call, required, request.independent, self._changed)
        self._specs = list(request.optimizers)
        self._call, job.settings, job.resumed = call, settings, False
        job.layout, job.data, job.deadlines.lost_s = None, None, None
        job.phase, job.started_s = Phase.WAITING, None
        job.initialiser, job.initial_sent = self.initialiser, False  # None: the first client that is ready
        job.send(settings=settings.model_dump_json(), optimizers=request.optimizers, learning_rates=tables)

    def check_call(self) -> None:
        """Raise LayoutMismatch if a worker was refused because its data differ: no worker trains in this call."""
        if self._call.refusal is not None:
            raise self._call.refusal

    def check_model(self, layout: Layout, data: pb.DatasetInfo) -> None:
        """Check that a worker's model has the same weights as the others'; their names may differ.

        Keras numbers layers, and the callbacks of worker 0 may have built some.

        Raises:
            LayoutMismatch: Shapes, frozen weights or data differ from the other workers'.
        """
        job = self.job
        if job.layout is None:
            check_layout(layout, None, job.settings)
        elif not job.layout.fits(layout):
            raise LayoutMismatch(
                f"a model must have the same weights on all workers: {job.layout.difference(layout)}. Build it from "
                "the same data everywhere, with a seed where it is drawn or shuffled."
            )
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

    def trains(self, member: Member) -> None:
        """Let the others wait for a worker that has returned to an epoch in which it has its own part of the data."""
        if self.ledger is None and self._call.epoch_begun and self._call.may_join:
            self.job.set_resting(member, False)

    def left(self, member: Member, now: float) -> None:
        """Take back a worker's leases; the others no longer wait for it at a barrier, unless its part must be used."""
        self.release_leases(member)
        self._call.complete_barriers()
        self._update_absences(now)

    def _update_absences(self, now: float) -> None:
        present = [member.worker for member in self.job.membership.members]
        self._absences.update(present, self._call.absent(present), now)
        self._barrier_deadlines.update(self._call.awaited(present), now)

    def pushed(self, worker: int, pushes: int) -> None:
        """Record the number of pushes of a worker so far."""
        self._barrier_deadlines.pushed(worker, pushes)

    def overdue(self, now: float) -> list[tuple[int, float]]:
        """Return the workers that others wait for at a barrier and that have made no progress for too long."""
        return self._barrier_deadlines.overdue(now)

    def worker_failed(self, worker: int, error_type: str, text: str) -> None:
        """End the current call of `fit` on all workers with the error of one."""
        self._call.fail(worker, error_type, text)

    def shard_lost(self, shard: int, now: float) -> None:
        """Begin another generation, which continues from the last checkpoint once the shard is back."""
        job = self.job
        if job.settings.checkpoint_every == "off":
            job.fail(f"shard {shard} was lost, and no checkpoints are written (--checkpoint-every off)")
        elif self._drain_requested:
            job.fail(f"shard {shard} was lost while the job was drained")
        elif job.layout is not None:
            job.notes.append(
                f"shard {shard} was lost: the job waits up to {job.settings.reconnect_s:g} s for it, and "
                "then resumes from the last checkpoint"
            )
            job.begin_generation(job.generation + 1, now)
            self.reset()

    def set_rates(self, request: pb.SetLearningRatesRequest, now: float) -> None:
        """Set the learning rate of later updates.

        Raises:
            InvalidRequest: The request does not come from worker 0, or is not a valid table.
        """
        member = self.job.renew(request.session, now)
        if member.worker != LEADER:
            raise InvalidRequest(f"worker {LEADER} must set the learning rate; received it from {member.worker}.")
        if len(request.rates) != self._optimizers.count(",") + 1:
            raise InvalidRequest(
                f"learning rates must be set for all optimizers, {self._optimizers}; received {len(request.rates)} "
                "tables. Send one for each."
            )
        for table in request.rates:
            check_rates(table)
        for spec, table in zip(self._specs, request.rates, strict=True):
            spec.learning_rates.CopyFrom(table)
        self.job.send(learning_rates=request.rates)

    # ------------------------------------------------------------------ leased samples

    def _open_epoch(self, decision: pb.Decision | None = None) -> None:
        job, data, epoch = self.job, self.job.data, len(self._call.decisions)
        assert data is not None
        samples, size = data.train_samples, data.lease_samples
        if decision is not None and decision.HasField("leases"):
            samples, size = decision.leases.samples, decision.leases.lease_samples
        elif data.batch_samples:
            used = epoch_range(samples, data.batch_samples, data.epoch_batches, epoch)
            samples = used.stop - used.start
        self._epoch_used = False
        job.orphans.clear()
        self.ledger = self._new_ledger(epoch, samples, size) if size and samples else None
        if self.ledger is not None and self.ledger.parts == 1:
            self.ledger.lease_to(LEADER, {LEADER})  # reserved for worker 0, whose metrics need at least one batch
            leader = job.membership.get(LEADER)
            if leader is not None:
                leader.idle = False

    def _new_ledger(self, epoch: int, samples: int, lease_samples: int) -> EpochLedger:
        job, settings = self.job, self.job.settings
        batch = job.data.batch_samples if job.data is not None else 0
        parts = settings.workers if batch and consistency_of(settings.mode).fixed_assignment else 1
        guided = 0 if settings.lease_batches else settings.workers
        return EpochLedger(epoch, samples, lease_samples, batch, guided, parts)

    def next_task(self, member: Member, now: float, epoch: int | None = None, ahead: bool = False) -> pb.Task:
        """Return the next samples of the epoch, or the request to wait; END if the epoch has none left.

        A worker asks ahead while it trains on a lease. If there is none, it asks again once it has used all of its own.
        The end is a revision, so that no worker is at the barrier when servers return to an earlier state of the epoch.

        Raises:
            InvalidRequest: No samples are leased in this call of `fit`.
        """
        job, ledger, number = self.job, self.ledger, len(self._call.decisions)
        if ledger is None:
            raise InvalidRequest(
                "a lease must belong to data of known length, such as arrays or a LeasedDataset. Received: that of a "
                "worker whose data are divided in advance. Check that both sides run the same version."
            )
        if not ahead:
            if not member.idle:
                member.idle = True
                ledger.take_back(member.worker)
            job.step_deadlines.forget(member.worker)
        is_past = epoch is not None and epoch < number  # its session had ended
        if self.draining or self._call.stop_requested or is_past or (ledger.finished and self._end_of_epoch()):
            return pb.Task(kind=pb.END)
        present = {each.worker for each in job.membership.members} | self._call.returning
        lease = None if job.paused else ledger.lease_to(member.worker, present)
        if lease is None:
            if not ahead:
                job.set_resting(member)
            return pb.Task(kind=pb.WAIT)
        member.idle = False
        job.set_resting(member, False)
        if not ahead:
            job.step_deadlines.begin(member.worker, now)
        return pb.Task(
            kind=pb.TRAIN, lease=lease.number, epoch=number, start=lease.start, stop=lease.stop, parts=ledger.parts
        )

    def _end_of_epoch(self) -> bool:
        """Return whether workers may learn that all samples are used.

        The last gradients are on all shards when every worker has asked for its next samples.
        """
        if not self.checkpointable:
            return True
        if not self._epoch_used and self.job.membership.all_idle_but(self._call.arrived):
            self._epoch_used = True
            self.job.send(flush=True)
            self._changed()
        return self._epoch_used and self.committed

    def samples_reported(self, member: Member, epoch: int | None, uses: Iterable[pb.LeaseUse], now: float) -> None:
        """Mark samples as used that a worker has used without a push; a repetition changes nothing."""
        for use in uses if epoch is None or epoch == len(self._call.decisions) else ():
            lease = self.ledger.held_by(member.worker, use.lease) if self.ledger is not None else None
            if lease is not None and lease.next < use.stop <= lease.stop:
                self.samples_used(member.worker, lease.number, lease.epoch, lease.next, use.stop, now)

    def _check_all_used(self) -> None:
        """Fail the job if an epoch has ended with samples that nobody has used, though nobody asked it to end."""
        ledger = self.ledger
        if ledger is None or not ledger.has_batches or self.draining or self._call.stop_requested or ledger.finished:
            return
        self.job.fail(
            f"every sample of an epoch must be used; {ledger.samples - ledger.used_total:,} of {ledger.samples:,} were "
            "not, and no callback has stopped the training. Report this, with the logs of the workers"
        )

    def samples_used(self, worker: int, lease: int, epoch: int, start: int, stop: int, now: float) -> None:
        """Mark samples as used; a worker that waits for a lease and holds none rests."""
        assert self.ledger is not None
        self.ledger.use(lease, stop)
        self._leased_samples_used += stop - start
        self.job.step_deadlines.end(worker, now)
        if self.job.membership.get(worker) is not None:
            self.job.step_deadlines.begin(worker, now)

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
        """End `fit` early; end the job if no worker is in it."""
        job = self.job
        if job.phase in OVER:
            return
        if len(job.membership):
            if not self._drain_requested:
                job.notes.append(f"draining: {reason}")
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
        self._await_returning(now)
        self._update_absences(now)
        exceeded = self._absences.exceeded(now)
        if exceeded is None:
            return
        worker, absent_s = exceeded
        absent = f"worker {worker} has been absent from fit for {absent_s:.0f} s"
        if worker == LEADER:
            self.job.fail(f"{absent}, and it decides for all")
        else:
            self.job.fail(
                f"{absent}, and its part of the data was not used in this epoch: its log states the reason. Correct "
                "it, or use a LeasedDataset, whose samples other workers take over"
            )

    # ------------------------------------------------------------------ checkpoints

    @property
    def checkpointable(self) -> bool:
        """Return whether a call of `fit` has begun, and checkpoints are taken."""
        return self.job.layout is not None and self.job.settings.checkpoint_every != "off"

    @property
    def revision(self) -> int:
        """Return the number of changes so far that workers learn."""
        return self._revision

    @property
    def committed(self) -> bool:
        """Return whether a checkpoint contains all revisions."""
        return self._committed >= self._revision or not self.checkpointable

    def commit(self, revision: int) -> None:
        """Record that a checkpoint contains the changes up to a revision, or that none could be written."""
        self._committed = max(self._committed, revision)

    def _changed(self) -> None:
        self._revision += 1

    @property
    def completed_call(self) -> int:
        """Return the number of the current call of `fit` if it is complete, else 0."""
        return self._call.number if self._call.last is not None else 0

    def state(self) -> bytes:
        """Return the state of all calls, as a serialised `FitState`."""
        job = self.job
        assert job.layout is not None and job.data is not None
        state = pb.FitState(
            layout=job.layout.to_proto(), data=job.data, optimizers=self._specs, epochs_done=self.epochs_done,
            samples_used=self._leased_samples_used, earlier=self._earlier, revision=self._revision,
            workers={member.worker for member in job.membership.members} | self._call.returning,
        )  # fmt: skip
        self._record.put_state(state)
        self._call.put_state(state)
        if self.ledger is not None:
            plan = pb.LeasePlan(samples=self.ledger.samples, lease_samples=self.ledger.lease_samples)
            state.leases.CopyFrom(plan)
            state.unused.extend(pb.SampleRange(epoch=e, start=a, stop=b) for e, a, b in self.ledger.unused())
            state.position_epoch, state.position = self.ledger.position
        return state.SerializeToString()

    def reset(self) -> None:
        """Drop all calls of `fit`: those of a checkpoint follow, or the script's first one begins again."""
        job = self.job
        self.ledger, job.layout, job.data = None, None, None
        self.epochs_done, self._leased_samples_used, self._record = 0, 0, FitRecord()
        self._call, self._earlier, self._optimizers = FitCall(job), {}, ""
        self._revision = self._committed = 0
        self._return_by_s = None

    def restore_state(self, state: pb.FitState) -> None:
        """Continue from the state of a checkpoint; `Coordinator.restored` must follow.

        Raises:
            ValueError: The ledger cannot have been in that state.
            Unsupported: The servers do not have the optimizers.
        """
        job = self.job
        settings = settings_with_optimizers(job.settings, state.optimizers)
        job.settings = settings.model_copy(update={"model": state.fit.model[:MAX_NAME] or settings.model})
        job.layout, job.data, job.initialiser = Layout.from_proto(state.layout), state.data, None
        self._specs, self._optimizers = list(state.optimizers), _names(state.optimizers)
        self._record = FitRecord.restored(state)
        required = _required(state.independent, state.data, settings.workers)
        self._call = FitCall.restored(job, state, required, self._changed)
        self._earlier = dict(state.earlier)
        self.epochs_done, self._leased_samples_used = state.epochs_done, state.samples_used
        self._revision = self._committed = state.revision
        self.ledger, self._return_by_s = None, None
        if state.HasField("leases"):
            plan = state.leases
            self.ledger = self._new_ledger(len(self._call.decisions), plan.samples, plan.lease_samples)
            unused = [(span.epoch, span.start, span.stop) for span in state.unused]
            self.ledger.restore(unused, state.position_epoch, state.position)
        self._epoch_used = self.ledger is not None and self.ledger.finished
        tables = [spec.learning_rates for spec in self._specs]
        job.send(
            settings=job.settings.model_dump_json(), optimizers=self._specs, learning_rates=tables, restored_call=True
        )
        job.send(layout=state.layout)

    def _await_returning(self, now: float) -> None:
        """Stop waiting for members of a checkpoint that have not returned within the length of a session."""
        if not self._call.returning or self.job.phase != Phase.TRAINING:
            return
        if self._return_by_s is None:
            self._return_by_s = now + self.job.settings.session_s
        elif now > self._return_by_s:
            self._call.returning.clear()
            self._call.complete_barriers()

    def summary(self) -> WorkSummary:
        """Return what the job's summary states about the script."""
        samples = self._leased_samples_used if self._leased_samples_used else None
        record = self._record
        return WorkSummary(
            record.planned or None, self.epochs_done, record.batch_size, samples, self._interrupted, record.history
        )

    def progress(self) -> WorkProgress:
        """Return the place that the current call of `fit` has reached."""
        return self._record.progress(len(self._call.decisions))

    def newest_results(self) -> tuple[int, Mapping[str, float]]:
        """Return the number of complete epochs and the logs of the newest one by name."""
        if not self._call.decisions:
            return 0, {}
        return self.epochs_done, {f"epoch/{name}": value for name, value in self._call.decisions[-1].logs.items()}


def _required(independent: bool, data: pb.DatasetInfo, workers: int) -> Sequence[int]:
    """Return the workers that each have a fixed part of the data."""
    return () if independent or data.lease_samples else range(workers)


def _check_every_gradient(settings: ServerSettings) -> None:
    """Raise Unsupported if the settings concern local steps, which a client of `downpour.connect` does not make."""
    given = [
        *([f"--mode {settings.mode}"] if consistency_of(settings.mode).payload != "gradient" else []),
        *(["--push-every"] if settings.push_every > 1 else []),
        *(["--fetch-every"] if (settings.fetch_every or 1) > 1 else []),
        *(["--overlap"] if settings.overlap else []),
        *(["--warm-start"] if settings.warm_start else []),
    ]
    if given:
        raise Unsupported(
            "a client of downpour.connect pushes every gradient and pulls when it asks to. Received: a server with "
            f"{', '.join(given)}. Start the server without."
        )


def _names(optimizers: Sequence[pb.OptimizerSpec]) -> str:
    return ", ".join(optimizer.name for optimizer in optimizers)
