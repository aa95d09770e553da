"""The job: phases, tasks and membership over the shards. Pure: no gRPC, no files, no clock of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import StrEnum

from protos import parameter_server_pb2 as pb
from protos.channel import PROTOCOL
from protos.errors import InvalidRequest, JobConflict, LayoutMismatch, Unsupported
from protos.layout import Layout
from ps.config import ServerSettings
from ps.ledger import Ledger
from ps.membership import Member, Membership

LEASES_PER_WORKER = 16  # of an epoch: small enough that the last ones end together
DOUBT_S = 2.0


class Phase(StrEnum):
    """What a job is doing."""

    WAITING = "waiting"  # for a first worker
    INITIALISING = "initialising"
    WARMING = "warming"
    TRAINING = "training"
    DRAINING = "draining"  # no more leases: save what there is
    FINISHING = "finishing"  # the last evaluation
    ENDED = "ended"
    FAILED = "failed"


OVER = (Phase.ENDED, Phase.FAILED)


class Coordinator:
    """Owns settings, membership, ledger, tasks and the end of the job.

    Attributes:
        phase: What the job is doing.
        evaluations: Results on the validation split, by epoch.
        test: Result on the test split; None before the end.
        notes: What a person should know, oldest first.
    """

    def __init__(
        self,
        settings: ServerSettings,
        job: str,
        new_session: Callable[[], int],
        send: Callable[[pb.ShardCommand], None],
    ) -> None:
        """A job without workers.

        Args:
            settings: Of the job.
            job: Its name.
            new_session: Draws an unguessable number.
            send: Sends a command to every shard, now and joining later, in order.
        """
        self.settings, self.job = settings, job
        self.phase = Phase.WAITING
        self.membership = Membership(settings.session_s, new_session)
        self.layout: Layout | None = None
        self.data: pb.Data | None = None
        self.ledger: Ledger | None = None
        self.shards: dict[int, pb.ShardAddress] = {}
        self.views_seen: dict[int, int] = {}
        self.evaluations: dict[int, pb.Evaluation] = {}
        self.test: pb.Evaluation | None = None
        self.notes: list[str] = []
        self.facts: dict[str, str] = {}
        self.started_s: float | None = None
        self._send = send
        self._initialiser: int | None = None
        self._initialised: set[int] = set()
        self._first_warm_s: float | None = None
        self._pinned: dict[int, set[int]] = {}
        self._tasks: deque[pb.Task] = deque()
        self._assigned: dict[int, pb.Task] = {}
        self._closed_epochs = 0
        self._advancing = self._again = False

    # ------------------------------------------------------------------ shards

    @property
    def shards_joined(self) -> bool:
        """Whether every shard has joined."""
        return len(self.shards) == self.settings.shards

    def shard_joined(self, address: pb.ShardAddress) -> None:
        """Takes a shard in.

        Raises:
            InvalidRequest: Its number is not one of this job's.
            JobConflict: That shard is there already.
        """
        if not address.shard < self.settings.shards:
            raise InvalidRequest(
                f"a shard's number must be below {self.settings.shards}; received {address.shard}."
            )
        if address.shard in self.shards:
            raise JobConflict(
                f"shard {address.shard} is at {self.shards[address.shard].address} already: start another number."
            )
        self.shards[address.shard] = address

    def shard_event(self, shard: int, event: pb.ShardEvent, now: float) -> None:
        """Takes what a shard reports of itself."""
        if event.view_seen:
            self.views_seen[shard] = event.view_seen
        if event.initialised:
            self._initialised.add(shard)
            if len(self._initialised) == self.settings.shards and self.phase == Phase.INITIALISING:
                self.phase = Phase.WARMING
        if event.pinned:
            self._pinned.setdefault(event.pinned, set()).add(shard)
        self.advance(now)

    def view_settled(self, number: int) -> bool:
        """Whether every shard knows the view of that number."""
        return all(self.views_seen.get(shard, 0) >= number for shard in self.shards)

    # ------------------------------------------------------------------ workers

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
        self._check_layout(Layout.from_proto(request.layout))
        self._check_data(request.data)
        wanted = request.worker if request.HasField("worker") else None
        if wanted is not None and self.membership.get(wanted):
            if request.rejoin:
                wanted = None
            else:
                self.leave(wanted, now, f"worker {wanted} was started again: the older one is fenced")
        member = self.membership.join(wanted, request.host, request.pid, now)
        self.facts = self.facts or dict(request.facts)
        if self.phase == Phase.WAITING:
            self.phase = Phase.INITIALISING
        self._send(pb.ShardCommand(view=self.membership.view()))
        return member

    def ready(self, request: pb.ReadyRequest, now: float) -> pb.ReadyReply:
        """Says whether a worker is to initialise the weights, may train, or is too late for either."""
        member = self._alive(request.session, now)
        if request.warm and not member.warm:
            member.warm = True
            if self._first_warm_s is None:
                self._first_warm_s = now
        if self.phase == Phase.INITIALISING and self._initialiser is None:
            self._initialiser = member.worker
        self.advance(now)
        return pb.ReadyReply(
            initialise=self.phase == Phase.INITIALISING
            and self._initialiser == member.worker
            and not request.initialised,
            start=self.phase not in (Phase.WAITING, Phase.INITIALISING, Phase.WARMING),
            end=self.phase in OVER,
        )

    def heartbeat(self, session: int, now: float) -> pb.HeartbeatReply:
        """Renews a session."""
        self._alive(session, now)
        return pb.HeartbeatReply(drain=self.draining)

    def next_task(self, session: int, now: float) -> pb.Task:
        """The next task of a worker, which has finished (or gives up) what it had."""
        member = self._alive(session, now)
        if not member.idle:
            member.idle = True
            self._give_up(member.worker)
            self.advance(now)
        if self.phase in OVER:
            return pb.Task(kind=pb.END, reason=self.notes[-1] if self.phase == Phase.FAILED else "")
        if self._tasks:
            task = self._tasks.popleft()
            self._assigned[member.worker] = task
            member.idle = False
            return task
        lease = self.ledger.lease(member.worker) if self.ledger and self.phase == Phase.TRAINING else None
        if lease is None:
            return pb.Task(kind=pb.WAIT)
        member.idle = False
        return pb.Task(
            kind=pb.TRAIN, lease=lease.number, epoch=lease.epoch, start=lease.start, stop=lease.stop
        )

    def report(self, request: pb.ReportRequest, now: float) -> None:
        """Takes the result of an evaluation task.

        Raises:
            InvalidRequest: The worker has no such task.
        """
        member = self._alive(request.session, now)
        task = self._assigned.get(member.worker)
        if task is None or task.kind != request.kind or task.epoch != request.epoch:
            raise InvalidRequest(
                f"a report must be of the task that worker {member.worker} was given; received one of "
                f"{pb.TaskKind.Name(request.kind)}, epoch {request.epoch}. Ask for a task."
            )
        del self._assigned[member.worker]
        if request.HasField("validation"):
            self.evaluations[request.epoch] = request.validation
        self._unpin(task.pin)
        if task.kind == pb.FINISH:
            self.test = request.test
            self.phase = Phase.ENDED

    def leave(self, worker: int, now: float, note: str = "") -> None:
        """Lets a worker go: what it had on loan is lent again."""
        member = self.membership.leave(worker)
        if member is None:
            return
        if note:
            self.notes.append(note)
        self._give_up(worker)
        if self._initialiser == worker:
            self._initialiser = None
        self._send(pb.ShardCommand(view=self.membership.view()))
        self.advance(now)

    def doubt(self, worker: int, now: float) -> None:
        """A worker's connection broke: if it does not speak up soon, it has died."""
        self.membership.doubt(worker, now, DOUBT_S)

    # ------------------------------------------------------------------ data

    def used(self, worker: int, lease: int, epoch: int, start: int, stop: int, now: float) -> None:
        """Marks samples as used: their push has its outcome on shard 0, or is sure to get one."""
        assert self.ledger is not None
        self.ledger.use(lease, stop)
        if self.ledger.complete(epoch):
            self.advance(now)

    @property
    def draining(self) -> bool:
        """Whether workers must finish no more than the batch that they have."""
        return self.phase in (Phase.DRAINING, *OVER)

    # ------------------------------------------------------------------ the course of the job

    def drain(self, reason: str, now: float) -> None:
        """Hands out no more data; the weights so far are evaluated and saved."""
        if self.phase in OVER or self.phase in (Phase.DRAINING, Phase.FINISHING):
            return
        self.notes.append(f"draining: {reason}")
        if self.phase == Phase.TRAINING and len(self.membership):
            self.phase = Phase.DRAINING
            for task in self._tasks:
                self._unpin(task.pin)
            self._tasks.clear()
            self.advance(now)
        else:
            self.fail(f"stopped before training began: {reason}" if self.started_s is None else reason)

    def fail(self, reason: str) -> None:
        """Ends the job without a result."""
        if self.phase not in OVER:
            self.notes.append(reason)
            self.phase = Phase.FAILED

    def tick(self, now: float) -> None:
        """What time alone brings about: expired sessions, the start."""
        for member in self.membership.expired(now):
            self.leave(member.worker, now, f"worker {member.worker} is silent: its samples are leased again")
        self.advance(now)

    def advance(self, now: float) -> None:
        """Takes every step that has become possible; what a step brings about at once is seen to after it."""
        if self._advancing:
            self._again = True
            return
        self._advancing = self._again = True
        try:
            while self._again:
                self._again = False
                self._step(now)
        finally:
            self._advancing = False

    def _step(self, now: float) -> None:
        if self.phase == Phase.WARMING and self._may_start(now):
            self.phase = Phase.TRAINING
            self.started_s = now
        if self.ledger is None:
            return
        if self.phase == Phase.TRAINING:
            self._close_epochs()
        over = self.ledger.finished if self.phase == Phase.TRAINING else self.phase == Phase.DRAINING
        if over and self._all_idle():
            if len(self.membership) or self.phase == Phase.TRAINING:
                self._begin_finish()
            else:
                self.fail("no worker is left to evaluate and save the model")
        for pin, shards in list(self._pinned.items()):
            if len(shards) == self.settings.shards:
                del self._pinned[pin]
                self._tasks.append(self._task_of(pin))

    def _may_start(self, now: float) -> bool:
        warm = sum(member.warm for member in self.membership.members)
        late = self._first_warm_s is not None and now >= self._first_warm_s + self.settings.start_timeout_s
        return warm > 0 and (warm >= self.settings.workers or late)

    def _all_idle(self) -> bool:
        busy = [member.worker for member in self.membership.members if not member.idle and member.warm]
        return all(worker in self._assigned for worker in busy)

    def _close_epochs(self) -> None:
        """Pins the weights of every epoch whose last sample has been used, to be evaluated."""
        assert self.ledger is not None and self.data is not None
        while self._closed_epochs < self.settings.epochs - 1 and self.ledger.complete(self._closed_epochs):
            self._closed_epochs += 1
            if self.data.validation_samples:
                self._pin(self._closed_epochs)

    def _begin_finish(self) -> None:
        self.phase = Phase.FINISHING
        self._pin(self.settings.epochs + 1)

    def _task_of(self, pin: int) -> pb.Task:
        if pin == self.settings.epochs + 1:
            assert self.ledger is not None
            return pb.Task(kind=pb.FINISH, epoch=self.ledger.epoch, pin=pin)
        return pb.Task(kind=pb.VALIDATE, epoch=pin - 1, pin=pin)

    def _pin(self, number: int) -> None:
        self._pinned[number] = set()
        self._send(pb.ShardCommand(pin=number))

    def _unpin(self, number: int) -> None:
        self._send(pb.ShardCommand(unpin=number))

    def _give_up(self, worker: int) -> None:
        """Takes back the lease and the task that a worker holds."""
        task = self._assigned.pop(worker, None)
        if task is not None:
            self._tasks.appendleft(task)
        if self.ledger is not None:
            self.ledger.take_back(worker)

    def _alive(self, session: int, now: float) -> Member:
        member = self.membership.of_session(session)
        self.membership.renew(member, now)
        return member

    # ------------------------------------------------------------------ agreement

    def _check_layout(self, layout: Layout) -> None:
        if self.layout is None:
            layout.cut(self.settings.shards)
            self.layout = layout
            self._send(pb.ShardCommand(layout=layout.to_proto()))
            return
        difference = self.layout.difference(layout)
        if difference is not None:
            raise LayoutMismatch(
                f"a worker's model must be the job's, {self.settings.model!r}: {difference}."
            )

    def _check_data(self, data: pb.Data) -> None:
        if self.data is None:
            if not data.train_samples:
                raise LayoutMismatch(f"a job needs training samples; the data {data.name!r} have none.")
            self.data = data
            self.ledger = Ledger(
                data.train_samples, self.settings.epochs, self._lease_samples(data.train_samples)
            )
        elif data.checksum != self.data.checksum or data.train_samples != self.data.train_samples:
            raise LayoutMismatch(
                f"a worker's data must be the job's, {self.data.name!r} with checksum {self.data.checksum[:12]} and "
                f"{self.data.train_samples} training samples; received {data.name!r} with {data.checksum[:12]} and "
                f"{data.train_samples}. Give every worker the same file."
            )

    def _lease_samples(self, samples: int) -> int:
        batch = self.settings.batch_size
        batches = self.settings.lease_batches or samples // (
            batch * LEASES_PER_WORKER * self.settings.workers
        )
        return batch * max(1, batches)


def check_protocol(protocol: int) -> None:
    """Raises Unsupported unless the peer speaks this version of the protocol."""
    if protocol != PROTOCOL:
        raise Unsupported(
            f"both sides must speak protocol {PROTOCOL}; received {protocol}. Install the same version."
        )
