"""The coordinator of a job: registration, start, tasks, membership, generations and the end.

Every method changes the state and appends commands for the shards to `job.outbox`. The caller delivers the commands and
passes the shards' events to `shard_event`, until no command and no event is left.

This module is pure: it does no I/O and reads no clock.
"""

from __future__ import annotations

from collections.abc import Collection

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import JobConflict
from downpour.protos.layout import Layout
from downpour.protos.sentences.sentence import sentence
from downpour.ps.coordinator.admission import bounded, check_protocol
from downpour.ps.coordinator.job import Job
from downpour.ps.coordinator.membership import Member
from downpour.ps.coordinator.operator_requests import OperatorRequests
from downpour.ps.coordinator.phase import BEFORE_TRAINING, OVER, Phase
from downpour.ps.coordinator.work import Work

DISCONNECT_GRACE_S = 2.0
MAX_NOTE_CHARACTERS = 200  # of a note that a worker has written
MAX_RECORDED_INCARNATIONS = 10_000  # incarnations whose environment facts are kept


class Coordinator:
    """Coordinates one job: admits workers, assigns tasks to them and sends commands to the shards.

    Attributes:
        job: The state of the job.
        work: The work of the job: built-in training or a script's `fit`.
        operator: The requests of users who operate the job.
    """

    def __init__(self, job: Job, work: Work) -> None:
        """Create a coordinator of a job that has not begun.

        Args:
            job: The state of the job.
            work: The work of the job, which shares this state.
        """
        self.job, self.work = job, work
        self.operator = OperatorRequests(job, work)

    # ------------------------------------------------------------------ workers

    def register(self, request: pb.RegisterRequest, now: float) -> Member:
        """Admit a worker; the first one fixes the job's layout and data, and those of later ones must be equal.

        Raises:
            Unsupported: The worker speaks another version of the protocol, or cannot take part in the work.
            JobConflict: The worker belongs to another job, or the job is over.
            LayoutMismatch: The worker's model or data differ from the job's.
        """
        job = self.job
        check_protocol(request.protocol)
        if request.job != job.name:
            raise JobConflict(
                f"this server runs job {job.name!r}; received a worker of job {request.job!r}. "
                "Start another server for another job."
            )
        if job.phase in OVER:
            raise JobConflict(f"job {job.name!r} has {job.phase}: start a new server for a new job.")
        self.work.check_worker(request, now)
        layout = Layout.from_proto(request.layout)
        self.work.check_model(layout, request.data)
        if job.layout is None:
            self.agree(layout, request.data)
            if scaling := request.environment.get("scaling", ""):
                job.notes.append(scaling[:MAX_NOTE_CHARACTERS])
        wanted = request.worker if request.HasField("worker") else None
        if wanted is not None and job.membership.get(wanted):
            if request.rejoin:
                wanted = None
            else:
                self.leave(wanted, now, f"worker {wanted} was started again: the older process is fenced")
        member = job.membership.join(wanted, request.host, request.pid, now, request.evaluator)
        if len(job.facts) < MAX_RECORDED_INCARNATIONS:
            job.facts[member.worker, member.incarnation] = bounded(request.environment)
        if job.phase == Phase.WAITING:
            job.phase = Phase.INITIALISING
        job.send_view()
        self.work.joined(member)
        return member

    def agree(self, layout: Layout, data: pb.DatasetInfo) -> None:
        """Fix the layout and the data of the job, and begin with no sample used."""
        self.job.layout, self.job.data = layout, data
        self.work.open()
        self.job.send(layout=layout.to_proto())

    def ready(self, request: pb.ReadyRequest, now: float) -> pb.ReadyReply:
        """Return whether a worker must initialise the weights, whether it may train, and whether the job is over.

        Raises:
            LayoutMismatch: Another worker of this call of a script's `fit` has other data.
        """
        job, member = self.job, self.job.renew(request.session, now)
        self.work.check_call()
        if request.compiled and not member.warm:
            member.warm = True
            self.work.trains(member)
            known = job.facts.get((member.worker, member.incarnation))
            if known is not None:
                known.update(bounded(request.environment))
            if job.first_warm_s is None:
                job.first_warm_s = now
        if job.phase == Phase.INITIALISING and job.initialiser is None and not job.resumed:
            job.initialiser = member.worker
        job.initial_sent |= request.initialised and job.initialiser == member.worker
        self.advance(now)
        asked = job.phase == Phase.INITIALISING and job.initialiser == member.worker
        return pb.ReadyReply(
            initialise=asked and not request.initialised and job.shards.may_be_initialised,
            start=job.phase not in BEFORE_TRAINING,
            end=job.phase in OVER,
        )

    def heartbeat(self, session: int, now: float) -> pb.HeartbeatReply:
        """Renew a session; return whether the worker must stop training and whether the job is over."""
        self.job.renew(session, now)
        over = self.job.phase if self.job.phase in OVER else ""
        # A worker that is signalled like the job stays to save the model, also if no other was training any more.
        saving = self.job.phase == Phase.FINISHING and self.job.deadlines.hurried
        drain = self.work.draining or self.work.stop_requested or saving
        return pb.HeartbeatReply(drain=drain, remaining_s=self.job.deadlines.left_s(now), final_phase=over)

    def next_task(
        self, session: int, now: float, epoch: int | None = None, wanted: pb.LeaseRequest | None = None
    ) -> pb.Task:
        """Return a worker's next task; unless it asks ahead, one that it still holds counts as finished or given up.

        Args:
            session: The session of the worker.
            now: The current time in seconds.
            epoch: The epoch of the call of `fit` that a script's worker trains in; None otherwise.
            wanted: What a script's worker asks for: whether it trains on an earlier lease meanwhile, and the size.

        Raises:
            InvalidRequest: The work has no tasks.
        """
        return self.work.next_task(self.job.renew(session, now), now, epoch, wanted)

    def samples_reported(self, request: pb.LeaseRequest, now: float) -> None:
        """Mark the samples as used that a script's worker has used without a push."""
        epoch = request.epoch if request.HasField("epoch") else None
        self.work.samples_reported(self.job.renew(request.session, now), epoch, request.used, now)

    def samples_used(self, worker: int, lease: int, epoch: int, start: int, stop: int, now: float) -> None:
        """Mark samples as used: shard 0 has accepted their gradient."""
        self.work.samples_used(worker, lease, epoch, start, stop, now)

    def report(self, request: pb.ReportRequest, now: float) -> None:
        """Record the result of an evaluation task.

        Raises:
            InvalidRequest: The worker has no such task.
        """
        self.work.report(self.job.renew(request.session, now), request, now)
        self.advance(now)

    def meet(self, request: pb.BarrierRequest, now: float) -> pb.BarrierReply:
        """Record that a worker has reached a script's barrier; raise what `Work.meet` raises."""
        return self.work.meet(request, now)

    def set_rates(self, request: pb.SetLearningRatesRequest, now: float) -> None:
        """Set a script's learning rate; raise what `Work.set_rates` raises."""
        self.work.set_rates(request, now)

    def connection_lost(self, worker: int, now: float) -> None:
        """Shorten a worker's session, because its connection to a shard broke."""
        self.job.membership.shorten(worker, now, DISCONNECT_GRACE_S)

    def pushed(self, worker: int, pushes: int) -> None:
        """Record the number of pushes of a worker so far, which shows its progress."""
        self.work.pushed(worker, pushes)

    def blocked(self, workers: Collection[int], now: float) -> None:
        """Restart the clocks of the steps of all workers whose pushes wait for others, which is no part of a step."""
        for worker in workers:
            self.job.step_deadlines.put_off(worker, now)
        self.work.blocked(workers)

    def add_times(self, step_s: float, exchange_s: float) -> None:
        """Add the times that a leaving worker spent in steps and, within them, in exchanges."""
        if 0 <= exchange_s <= step_s < float("inf"):
            self.job.step_s, self.job.exchange_s = self.job.step_s + step_s, self.job.exchange_s + exchange_s

    def leave(self, worker: int, now: float, note: str = "") -> None:
        """Remove a worker and make its unused samples available for new leases."""
        job, member = self.job, self.job.membership.leave(worker)
        if member is None:
            return
        if note:
            job.notes.append(note)
        job.step_deadlines.forget(worker)
        command = pb.ShardCommand(view=job.membership.view())
        if job.initialiser == worker:
            job.initialiser, job.initial_sent = None, False
            if job.phase == Phase.INITIALISING and not job.resumed:
                job.initialiser = self.work.initialiser
                # Shards must not mix its weights with another's.
                command.initialisation = job.shards.void(command.view.number)
        job.outbox.append(command)
        self.work.left(member, now)
        self.advance(now)

    # ------------------------------------------------------------------ shards

    def shard_event(self, shard: int, event: pb.ShardEvent, now: float) -> None:
        """Process an event from a shard."""
        job = self.job
        if event.HasField("departed"):
            job.orphans.record(shard, event.departed)
        if event.view_seen:
            job.shards.seen(shard, min(event.view_seen, job.membership.number))
            if self.work.ledger is not None:
                job.orphans.seen(shard, event.view_seen, self.work.ledger)
        if event.initialised:
            job.shards.has_weights(shard, event.initialisation)
        if event.pinned:
            self.work.pinned(event.pinned, shard)
        self.advance(now)

    def shard_lost(self, shard: int, now: float) -> None:
        """Remove a lost shard, which may join again; before the end, the work decides whether the job recovers."""
        if self.job.shards.remove(shard) and self.job.phase not in OVER:
            self.work.shard_lost(shard, now)

    def begin_generation(self, generation: int, now: float) -> None:
        """End all sessions and void the shards' state; `restored` or `start_over` must follow."""
        self.job.begin_generation(generation, now)
        self.work.reset()

    def restored(self, closed_epochs: int, now: float) -> None:
        """Wait for the shards to hold the weights of a checkpoint, from which the ledger has been restored."""
        self.work.restored(closed_epochs)
        self.job.resumed, self.job.deadlines.lost_s = True, None
        self.job.phase = Phase.INITIALISING
        self.advance(now)

    def start_over(self, now: float) -> None:
        """Start the job from the beginning, because there is no checkpoint."""
        job = self.job
        if job.layout is not None and job.data is not None:
            self.agree(job.layout, job.data)
        self.work.restored(closed_epochs=0)
        self.work.evaluations.clear()
        job.resumed, job.deadlines.lost_s, job.elapsed_s = False, None, 0.0
        job.phase = Phase.INITIALISING if len(job.membership) else Phase.WAITING

    # ------------------------------------------------------------------ time and the end

    @property
    def draining(self) -> bool:
        """Return whether workers must stop after the batch that they have."""
        return self.work.draining

    def drain(self, reason: str, now: float, asked: bool = True) -> None:
        """Lease no more samples; end the job once the weights so far are evaluated and saved.

        Args:
            reason: The reason, which is added to the job's notes.
            now: The current time in seconds.
            asked: Whether a user requested the end, so that it must not take longer than `drain_timeout_s`.
        """
        self.work.drain(reason, now, asked)
        self.advance(now)

    def fail(self, reason: str) -> None:
        """End the job without a result."""
        self.job.fail(reason)

    def stop_at_once(self, reason: str) -> None:
        """End the job without a result and without waiting for its workers."""
        self.job.stopped_at_once = True
        self.fail(sentence("stopped_at_once", reason=reason))

    def tick(self, now: float) -> None:
        """Act on the passage of time: expired sessions, missed deadlines, and the time limit of the start."""
        job = self.job
        for member in job.membership.expired(now):
            self.leave(member.worker, now, sentence("no_heartbeat", worker=str(member.worker)))
        for worker, waited_s in job.step_deadlines.overdue(now):
            self.leave(worker, now, sentence("no_progress", worker=str(worker), seconds=f"{waited_s:.0f}"))
        for worker, waited_s in self.work.overdue(now):
            self.leave(worker, now, sentence("no_progress_for_others", worker=str(worker), seconds=f"{waited_s:.0f}"))
        self.work.tick(now)
        if job.phase not in OVER:
            able = job.membership.trainers if job.phase == Phase.TRAINING else job.membership.members
            reason = job.deadlines.exhausted(now, not len(job.membership), bool(able), job.shards.missing)
            if reason:
                self.fail(reason)
        self.advance(now)

    def advance(self, now: float) -> None:
        """Make every state transition that has become possible."""
        job = self.job
        # Training must neither begin nor continue between the weights and the slots that a worker sends.
        if job.phase == Phase.INITIALISING and job.shards.initialised and not self.work.awaits_slots:
            job.phase = Phase.WARMING
        if job.phase == Phase.WARMING and self._may_start(now):
            job.phase = Phase.TRAINING
            job.started_s = now - job.elapsed_s
            for member in job.membership.members:
                member.resting = not member.warm or member.evaluator
            job.send_view()
        self.work.advance(now)

    def _may_start(self, now: float) -> bool:
        job = self.job
        warm = sum(member.warm for member in job.membership.trainers)
        late = job.first_warm_s is not None and now >= job.first_warm_s + job.settings.start_timeout_s
        return warm > 0 and (job.resumed or warm >= self.work.starters or late)
