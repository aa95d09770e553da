"""Built-in training: leases of samples, evaluations of epochs, early stopping and the last evaluation.

This module is pure: it does no I/O and reads no clock.
"""

from __future__ import annotations

from collections.abc import Mapping

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.layout import Layout
from downpour.protos.sentences.sentence import counted, sentence
from downpour.ps.coordinator.admission import (
    check_data,
    check_fingerprint,
    check_layout,
    check_optimizer,
    lease_samples,
)
from downpour.ps.coordinator.evaluations import Evaluations, stagnates
from downpour.ps.coordinator.job import Job
from downpour.ps.coordinator.ledger import Ledger
from downpour.ps.coordinator.membership import Member
from downpour.ps.coordinator.phase import OVER, Phase
from downpour.ps.coordinator.work import Work, WorkProgress, WorkSummary


class TrainingWork(Work):
    """The built-in training of one of the server's models, whose samples and evaluations are leased to workers.

    Attributes:
        tasks: The evaluation tasks.
        stopped_early: Whether training ended because the validation loss had stopped falling.
    """

    def __init__(self, job: Job) -> None:
        """Create the work of a job that has no workers yet; see `Work`."""
        super().__init__(job)
        settings = job.settings
        self.tasks = Evaluations(settings.epochs, settings.shards, job.send)
        self.stopped_early = False
        self._ledger: Ledger | None = None
        self._model = ""  # the fingerprint of the first worker's model

    @property
    def ledger(self) -> Ledger | None:
        """Return the leases of all epochs; None before the first worker registered."""
        return self._ledger

    # ------------------------------------------------------------------ members

    def check_worker(self, request: pb.RegisterRequest, now: float) -> None:
        """Check that the model of a worker is not compiled with another optimizer than the job's.

        Raises:
            JobConflict: The optimizers or their hyperparameters differ.
            LayoutMismatch: The configuration of the model differs from that of the first worker.
        """
        for optimizer in request.optimizers:
            check_optimizer(optimizer, self.job.settings)
        if fingerprint := request.environment.get("model", ""):
            self._model = self._model or fingerprint
            check_fingerprint(fingerprint, self._model, self.job.settings.model)

    def check_model(self, layout: Layout, data: pb.DatasetInfo) -> None:
        """Check that a worker's layout and data are the job's; raise what `check_layout` and `check_data` raise."""
        check_layout(layout, self.job.layout, self.job.settings)
        check_data(data, self.job.data)

    def open(self) -> None:
        """Create a ledger in which no sample is used."""
        assert self.job.data is not None
        samples = self.job.data.train_samples
        self._ledger = Ledger(samples, self.job.settings.epochs, lease_samples(self.job.settings, samples))

    def left(self, member: Member, now: float) -> None:
        """Take back the task and the leases of a worker that has left."""
        self.tasks.give_back(member.worker, self.job.deadlines.hurried)
        self.release_leases(member)

    def shard_lost(self, shard: int, now: float) -> None:
        """Begin another generation, which continues from the last checkpoint once the shard is back."""
        job = self.job
        if job.layout is None:
            return
        if job.phase == Phase.DRAINING:
            job.fail(sentence("shard_lost_in_drain_resumable", shard=str(shard)))
            return
        self.await_shard(shard, now)

    # ------------------------------------------------------------------ progress

    def next_task(
        self, member: Member, now: float, epoch: int | None = None, wanted: pb.LeaseRequest | None = None
    ) -> pb.Task:
        """Return an evaluation, the next samples to train on, or the request to wait or to leave."""
        job = self.job
        if not member.idle:
            member.idle = True
            self.tasks.give_back(member.worker, job.deadlines.hurried)
            if self.ledger is not None:
                self.ledger.take_back(member.worker)
            self.advance(now)
        if job.phase in OVER:
            return pb.Task(kind=pb.END, reason=job.notes[-1] if job.phase == Phase.FAILED else "")
        if self.tasks.waiting and (member.evaluator or not job.membership.evaluator_free(self.tasks.assigned)):
            return self._evaluation(member, now)
        may_train = job.phase == Phase.TRAINING and not job.paused and not member.evaluator and self._may_train(member)
        lease = self.ledger.lease(member.worker) if self.ledger and may_train else None
        if lease is None:
            job.set_resting(member)
            job.step_deadlines.forget(member.worker)
            return pb.Task(kind=pb.WAIT)
        member.idle = False
        job.set_resting(member, False)
        job.step_deadlines.begin(member.worker, now)
        return pb.Task(kind=pb.TRAIN, lease=lease.number, epoch=lease.epoch, start=lease.start, stop=lease.stop)

    def _evaluation(self, member: Member, now: float) -> pb.Task:
        task = self.tasks.take(member.worker)
        member.idle = False
        self.job.set_resting(member)
        task.remaining_s = self.job.deadlines.left_s(now)
        self.job.step_deadlines.begin(member.worker, now, task=True)
        return task

    def _may_train(self, member: Member) -> bool:
        """Return whether a worker may train now: during the warm start, only one does."""
        assert self.ledger is not None
        settings = self.job.settings
        if self.ledger.used_total >= settings.warm_start * settings.batch_size:
            return True
        return member.worker == min(each.worker for each in self.job.membership.trainers if each.warm)

    def samples_used(self, worker: int, lease: int, epoch: int, start: int, stop: int, now: float) -> None:
        """Mark samples as used, and evaluate the weights at the end of an epoch."""
        assert self.ledger is not None
        self.ledger.use(lease, stop)
        self.job.step_deadlines.end(worker, now)
        self.job.step_deadlines.begin(worker, now)
        if self.ledger.complete(epoch):
            self.advance(now)

    def pinned(self, number: int, shard: int) -> None:
        """Record that a shard has pinned the weights of an evaluation."""
        self.tasks.pinned(number, shard)

    def report(self, member: Member, request: pb.ReportRequest, now: float) -> None:
        """Record the result of an evaluation; end the training early if the validation loss does not fall."""
        job = self.job
        report = (request.kind, request.epoch)
        if member.last_report == report and member.worker not in self.tasks.assigned:
            return  # the worker repeats a report whose reply it did not receive
        task = self.tasks.done(member.worker, request)
        member.last_report = report
        job.step_deadlines.end(member.worker, now)
        if request.HasField("validation"):
            self.evaluations[request.epoch] = request.validation
        patience = job.settings.early_stopping
        if task.kind == pb.FINISH:
            self.test = request.test
            self._note_partial_test(request.test.samples)
        elif stagnates(self.evaluations, patience):
            self.stopped_early = True
            self.drain(
                f"the validation loss has not fallen for {counted(patience, 'epoch')} (--early-stopping)",
                now,
                asked=False,
            )

    def advance(self, now: float) -> None:
        """Close complete epochs, begin the last evaluation, or end the job, as soon as each is possible."""
        job = self.job
        if self.ledger is None:
            return
        if job.phase == Phase.TRAINING:
            self.tasks.close_epochs(self.ledger, validate=job.data is not None and job.data.validation_samples > 0)
        done = self.ledger.finished if job.phase == Phase.TRAINING else job.phase == Phase.DRAINING
        if done and job.membership.all_idle_but(self.tasks.assigned):
            if len(job.membership) or job.phase == Phase.TRAINING:
                job.phase = Phase.FINISHING
                job.send(flush=True)
                self.tasks.finish(self.ledger.epoch)
            else:
                job.fail(sentence("no_worker_to_save"))
        evaluating = self.tasks.under_way and not job.deadlines.hurried and len(job.membership)
        if job.phase == Phase.FINISHING and self.test is not None and not evaluating:
            job.phase = Phase.ENDED
        self.tasks.collect()

    def tick(self, now: float) -> None:
        """End a job whose model is saved if there is no time for its last evaluation."""
        job = self.job
        if job.phase not in OVER and job.saved and job.deadlines.suffices(now, not len(job.membership)):
            self._note_partial_test(0)
            job.phase = Phase.ENDED

    def _note_partial_test(self, samples: int) -> None:
        """Add a note if the last evaluation does not cover the whole test split."""
        total = self.job.data.test_samples if self.job.data else 0
        if samples < total:
            partly = sentence("saved_and_partly_evaluated", samples=samples, total=total)
            self.job.notes.append(partly if samples else sentence("saved_and_not_evaluated"))

    # ------------------------------------------------------------------ the end

    @property
    def draining(self) -> bool:
        """Return whether workers must stop after the batch that they have."""
        return self.job.phase in (Phase.DRAINING, *OVER)

    def drain(self, reason: str, now: float, asked: bool = True) -> None:
        """Lease no more samples; evaluate and save the weights so far, if there are any and a worker can do it."""
        job = self.job
        if job.phase in OVER:
            return
        if job.phase in (Phase.DRAINING, Phase.FINISHING):
            if asked and not job.deadlines.hurried:  # the job is ending already; from now on within a time limit
                job.deadlines.asked_s = now
            return
        job.notes.append(sentence("draining", reason=reason))
        job.deadlines.asked_s = now if asked else None
        if job.phase == Phase.TRAINING and len(job.membership):
            job.phase = Phase.DRAINING
            self.tasks.drop_waiting()
        elif job.phase == Phase.RECOVERING or job.resumed or job.elapsed_s:
            job.fail(sentence("drained_while_recovering", reason=reason))
        elif job.started_s is None:
            job.notes.append(sentence("stopped_before_training"))
            job.phase = Phase.ENDED
        else:
            job.fail(reason)

    # ------------------------------------------------------------------ generations and results

    @property
    def checkpointable(self) -> bool:
        """Return whether there is a ledger, so that training has been agreed on."""
        return self.ledger is not None

    def check_resumed(self, saved: Mapping[str, str | int]) -> None:
        """Check that optimizer, seed and batch size of a checkpoint are the job's.

        Raises:
            ValueError: One of them is not.
        """
        for what, value in saved.items():
            wanted = getattr(self.job.settings, what)
            if value != wanted:
                raise ValueError(
                    f"cannot resume: {what} must be the run's, {value!r}; received {wanted!r}. "
                    f"Leave --{what.replace('_', '-')} out, or start another run."
                )

    def reset(self) -> None:
        """Drop the evaluation tasks and the test result of an earlier generation."""
        self.tasks.clear()
        self.test = None

    def restored(self, closed_epochs: int) -> None:
        """Continue with the evaluations after `closed_epochs` epochs."""
        self.tasks.clear(closed_epochs)

    @property
    def closed_epochs(self) -> int:
        """Return the number of epochs whose weights have been evaluated, or need no evaluation."""
        return self.tasks.closed_epochs

    def summary(self) -> WorkSummary:
        """Return what the job's summary states about the training."""
        settings, ledger = self.job.settings, self.ledger
        done = sum(ledger.complete(epoch) for epoch in range(ledger.epochs)) if ledger else 0
        interrupted = not self.stopped_early and (ledger is None or not ledger.finished)
        return WorkSummary(
            settings.epochs, done, settings.batch_size, ledger.used_total if ledger else None, interrupted
        )

    def progress(self) -> WorkProgress:
        """Return the place that the training has reached."""
        settings, ledger = self.job.settings, self.ledger
        epoch, samples = (ledger.epoch, ledger.samples) if ledger else (0, 0)
        return WorkProgress(epoch, settings.epochs, settings.batch_size, samples_per_epoch=samples)

    def newest_results(self) -> tuple[int, Mapping[str, float]]:
        """Return the number of evaluated epochs and the newest validation result by name."""
        if not self.evaluations:
            return 0, {}
        newest = self.evaluations[max(self.evaluations)]
        return len(self.evaluations), {
            "validation/loss": newest.loss,
            **({"validation/accuracy": newest.accuracy} if self.has_accuracy else {}),
        }
