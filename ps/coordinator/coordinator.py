"""What workers ask of a job: to be let in, to start, for leases and tasks. Pure, like the job."""

from __future__ import annotations

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import JobConflict
from downpour.protos.layout import Layout
from downpour.ps.coordinator.admission import bounded, check_data, check_layout, check_protocol
from downpour.ps.coordinator.evaluations import stagnates
from downpour.ps.coordinator.job import Job
from downpour.ps.coordinator.membership import Member
from downpour.ps.coordinator.phase import BEFORE_TRAINING, OVER, Phase

DOUBT_S = 2.0
MOST_LIVES = 10_000  # of which facts are kept


class Coordinator(Job):
    """Answers a job's workers."""

    def register(self, request: pb.RegisterRequest, now: float) -> Member:
        """Admits a worker and fixes, or checks, layout and data.

        Raises:
            Unsupported: The worker speaks another version of the protocol.
            JobConflict: It comes for another job, or the job is over.
            LayoutMismatch: Its model or data are not the job's.
        """
        check_protocol(request.protocol)
        if request.job != self.job:
            raise JobConflict(
                f"this server runs job {self.job!r}; received a worker of job {request.job!r}. "
                "Start another server for another job."
            )
        if self.phase in OVER:
            raise JobConflict(f"job {self.job!r} has {self.phase}: start a new server for a new job.")
        layout = Layout.from_proto(request.layout)
        self._check_layout(layout)
        self._check_data(request.data)
        if self.layout is None:
            self.agree(layout, request.data)
        wanted = request.worker if request.HasField("worker") else None
        if wanted is not None and self.membership.get(wanted):
            if request.rejoin:
                wanted = None
            else:
                self.leave(wanted, now, f"worker {wanted} was started again: the older one is fenced")
        member = self.membership.join(wanted, request.host, request.pid, now, request.evaluator)
        if len(self.facts) < MOST_LIVES:
            self.facts[member.worker, member.incarnation] = bounded(request.environment)
        if self.phase == Phase.WAITING:
            self.phase = Phase.INITIALISING
        self._send(pb.ShardCommand(view=self.membership.view()))
        return member

    def ready(self, request: pb.ReadyRequest, now: float) -> pb.ReadyReply:
        """Says whether a worker is to initialise the weights, may train, or is too late for either."""
        member = self._alive(request.session, now)
        if request.compiled and not member.warm:
            member.warm = True
            known = self.facts.get((member.worker, member.incarnation))
            if known is not None:
                known.update(bounded(request.environment))
            if self._first_warm_s is None:
                self._first_warm_s = now
        if self.phase == Phase.INITIALISING and self._initialiser is None and not self._resumed:
            self._initialiser = member.worker
        self.advance(now)
        return pb.ReadyReply(
            initialise=self.phase == Phase.INITIALISING
            and self._initialiser == member.worker
            and not request.initialised,
            start=self.phase not in BEFORE_TRAINING,
            end=self.phase in OVER,
        )

    def heartbeat(self, session: int, now: float) -> pb.HeartbeatReply:
        """Renews a session."""
        self._alive(session, now)
        over = self.phase if self.phase in OVER else ""
        return pb.HeartbeatReply(drain=self.draining, remaining_s=self.patience.left_s(now), final_phase=over)

    def next_task(self, session: int, now: float) -> pb.Task:
        """The next task of a worker, which has finished (or gives up) what it had."""
        member = self._alive(session, now)
        if not member.idle:
            member.idle = True
            self._give_up(member.worker)
            self.advance(now)
        if self.phase in OVER:
            return pb.Task(kind=pb.END, reason=self.notes[-1] if self.phase == Phase.FAILED else "")
        if self.tasks.waiting and (member.evaluator or not self.membership.evaluator_free(self.tasks.assigned)):
            task = self.tasks.take(member.worker)
            member.idle = False
            self._rest(member)
            task.remaining_s = self.patience.left_s(now)
            self.pace.begin(member.worker, now, task=True)
            return task
        may_train = self.phase == Phase.TRAINING and not member.evaluator and self._turn_of(member)
        lease = self.ledger.lease(member.worker) if self.ledger and may_train else None
        if lease is None:
            self._rest(member)
            self.pace.forget(member.worker)
            return pb.Task(kind=pb.WAIT)
        member.idle = False
        self._rest(member, False)
        self.pace.begin(member.worker, now)
        return pb.Task(kind=pb.TRAIN, lease=lease.number, epoch=lease.epoch, start=lease.start, stop=lease.stop)

    def report(self, request: pb.ReportRequest, now: float) -> None:
        """Takes the result of an evaluation task.

        Raises:
            InvalidRequest: The worker has no such task.
        """
        member = self._alive(request.session, now)
        task = self.tasks.done(member.worker, request)
        self.pace.end(member.worker, now)
        if request.HasField("validation"):
            self.evaluations[request.epoch] = request.validation
        if task.kind == pb.FINISH:
            self.test = request.test
            self._note_cut(request.test.samples)
        elif stagnates(self.evaluations, self.settings.early_stopping):
            self.stopped_early = True
            patience = self.settings.early_stopping
            self.drain(f"the validation loss has not fallen for {patience} epochs (--early-stopping)", now, asked=False)
        self.advance(now)

    def _turn_of(self, member: Member) -> bool:
        """Whether a worker may train: during the warm start, only one does."""
        assert self.ledger is not None
        if self.ledger.used_total >= self.settings.warm_start * self.settings.batch_size:
            return True
        return member.worker == min(each.worker for each in self.membership.trainers if each.warm)

    def _rest(self, member: Member, resting: bool = True) -> None:
        """Tells the shards whether others have to wait for a worker."""
        if member.resting != resting:
            member.resting = resting
            self._send(pb.ShardCommand(view=self.membership.view()))

    def _give_up(self, worker: int) -> None:
        """Takes back the lease and the task that a worker holds."""
        self.tasks.give_back(worker, self.patience.hurried)
        if self.ledger is not None:
            self.ledger.take_back(worker)

    @property
    def upload_limit_bytes(self) -> int:
        """The most that a trained model may have: its weights as they are saved, and room for what describes them."""
        return 16 * (self.layout.size if self.layout else 0) + (64 << 20)

    def spent(self, step_s: float, exchange_s: float) -> None:
        """Counts what a worker's time went to."""
        if 0 <= exchange_s <= step_s < float("inf"):
            self.step_s, self.exchange_s = self.step_s + step_s, self.exchange_s + exchange_s

    def held_up(self, worker: int, now: float) -> None:
        """A worker waits for others, at a gate: that is no part of its step."""
        self.pace.put_off(worker, now)

    def doubt(self, worker: int, now: float) -> None:
        """A worker's connection broke: if it does not speak up soon, it has died."""
        self.membership.doubt(worker, now, DOUBT_S)

    def used(self, worker: int, lease: int, epoch: int, start: int, stop: int, now: float) -> None:
        """Marks samples as used: their push has its outcome on shard 0, or is sure to get one."""
        assert self.ledger is not None
        self.ledger.use(lease, stop)
        self.pace.end(worker, now)
        self.pace.begin(worker, now)
        if self.ledger.complete(epoch):
            self.advance(now)

    def _alive(self, session: int, now: float) -> Member:
        member = self.membership.of_session(session)
        self.membership.renew(member, now)
        return member

    def _check_layout(self, layout: Layout) -> None:
        check_layout(layout, self.layout, self.settings)

    def _check_data(self, data: pb.DatasetInfo) -> None:
        check_data(data, self.data)
