"""A coordinator without a network: its shards execute commands on request, and the test sets the clock."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from typing import Any

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.layout import TRAINED, Layout
from downpour.protos.protocol import PROTOCOL
from downpour.ps.config import ServerSettings
from downpour.ps.coordinator.job_factory import new_coordinator
from downpour.ps.coordinator.phase import OVER, Phase
from downpour.ps.coordinator.training_work import TrainingWork

LAYOUT = Layout.of([("w", (6,), TRAINED)])
EVERYTHING = Counter((epoch, position) for epoch in range(2) for position in range(20))
DATA = pb.DatasetInfo(name="tiny", checksum="c" * 64, train_samples=20, validation_samples=4, test_samples=4)


class PureJob:
    """A job whose shards execute commands at once or, unless `prompt`, when `answer` is called.

    Commands that a turn of the coordinator has left in its outbox are delivered by `deliver`, which every method here
    calls first and last, as a server does.

    Attributes:
        state: The state of the job.
    """

    def __init__(self, prompt: bool = True, **settings: Any) -> None:
        given = {"epochs": 2, "workers": 2, "batch_size": 4, "session_s": 10.0, "lease_batches": 2, **settings}
        self.settings = ServerSettings(**given)
        self.now = 0.0
        self.unanswered: deque[pb.ShardCommand] = deque()
        self.prompt = prompt
        self.used: Counter[tuple[int, int]] = Counter()
        self.reports: list[tuple[int, int]] = []
        self.coordinator = new_coordinator(self.settings, "job-1", itertools.count(1000).__next__)
        self.state = self.coordinator.job
        self._delivered: list[pb.ShardCommand] = []
        for shard in range(self.settings.shards):
            self.state.shards.add(pb.ShardAddress(shard=shard, address=f"host:{shard}", generation=1))

    def phase(self) -> Phase:
        return self.state.phase

    @property
    def commands(self) -> list[pb.ShardCommand]:
        """Return all commands so far."""
        self.deliver()
        return self._delivered

    def deliver(self) -> None:
        """Deliver the commands of the outbox to the shards, and their events to the coordinator, until none is left."""
        while self.state.outbox:
            command = self.state.outbox.popleft()
            self._delivered.append(command)
            self.unanswered.append(command)
            if self.prompt:
                self._answer_all()

    def answer(self) -> None:
        """Execute the commands so far on every shard, and report them as done."""
        self.deliver()
        self._answer_all()
        self.deliver()

    def _answer_all(self) -> None:
        while self.unanswered:
            command = self.unanswered.popleft()
            for shard in range(self.settings.shards):
                if command.HasField("view"):
                    self._event(shard, view_seen=command.view.number)
                if command.pin:
                    self._event(shard, pinned=command.pin)

    def _event(self, shard: int, **fields: Any) -> None:
        self.coordinator.shard_event(shard, pb.ShardEvent(**fields), self.now)

    def event(self, shard: int, **fields: Any) -> None:
        self.deliver()
        self._event(shard, **fields)
        self.deliver()

    def pass_time(self, seconds: float) -> None:
        self.deliver()
        self.now += seconds
        self.coordinator.tick(self.now)
        self.deliver()

    @property
    def pinned(self) -> set[int]:
        """The numbers of the pins that the shards must keep."""
        pins = [command.pin for command in self.commands if command.pin]
        return set(pins) - {command.unpin for command in self.commands if command.unpin}

    # ------------------------------------------------------------------ workers

    def request(self, **fields: Any) -> pb.RegisterRequest:
        base = pb.RegisterRequest(protocol=PROTOCOL, job="job-1", layout=LAYOUT.to_proto(), data=DATA)
        base.MergeFrom(pb.RegisterRequest(**fields))
        return base

    def join(self, worker: int | None = None, **fields: Any) -> int:
        """Register a worker, and return its session."""
        self.deliver()
        try:
            return self.coordinator.register(self.request(worker=worker, **fields), self.now).session
        finally:
            self.deliver()

    def ready(self, session: int, initialised: bool = False, warm: bool = True) -> pb.ReadyReply:
        self.deliver()
        reply = self.coordinator.ready(
            pb.ReadyRequest(session=session, initialised=initialised, compiled=warm), self.now
        )
        self.deliver()
        return reply

    def initialise(self) -> None:
        for shard in range(self.settings.shards):
            self.event(shard, initialised=True)

    def start(self, workers: int = 2) -> list[int]:
        """Start the job until it trains, and return the sessions."""
        sessions = [self.join() for _ in range(workers)]
        assert self.ready(sessions[0]).initialise
        self.initialise()
        for session in sessions:
            self.ready(session, initialised=True)
        assert all(self.ready(session).start for session in sessions)
        return sessions

    def task(self, session: int) -> pb.Task:
        """Request a task, and repeat the request if there is none, like a long poll."""
        self.deliver()
        task = self.coordinator.next_task(session, self.now)
        self.deliver()
        if task.kind == pb.WAIT:
            task = self.coordinator.next_task(session, self.now)
            self.deliver()
        return task

    def use(self, session: int, task: pb.Task, start: int, stop: int) -> None:
        """Mark `[start, stop)` of a lease as used, as the server does for a push."""
        self.deliver()
        worker = self.state.membership.of_session(session).worker
        assert self.coordinator.work.ledger is not None
        self.coordinator.work.ledger.check(task.lease, worker, task.epoch, start, stop)
        self.coordinator.samples_used(worker, task.lease, task.epoch, start, stop, self.now)
        self.deliver()
        self.used.update((task.epoch, position) for position in range(start, stop))

    def report(self, session: int, task: pb.Task, accuracy: float = 0.5) -> None:
        evaluation = pb.Evaluation(samples=4, loss=1.0, accuracy=accuracy)
        request = pb.ReportRequest(session=session, kind=task.kind, epoch=task.epoch, validation=evaluation)
        if task.kind == pb.FINISH:
            request.test.CopyFrom(evaluation)
        self.deliver()
        self.coordinator.report(request, self.now)
        self.deliver()
        self.reports.append((task.kind, task.epoch))

    def do(self, session: int, task: pb.Task, batches: int = 1_000_000) -> None:
        """Carry out a task; of a lease, at most a number of batches."""
        if task.kind == pb.TRAIN:
            for start in range(task.start, task.stop, 4)[:batches]:
                self.use(session, task, start, min(start + 4, task.stop))
        elif task.kind in (pb.VALIDATE, pb.FINISH):
            self.report(session, task)

    def take(self, session: int, kind: pb.TaskKind) -> pb.Task:
        """Return the session's next task of a kind; it carries out others before it, and all other workers wait."""
        assert isinstance(self.coordinator.work, TrainingWork)
        for member in self.state.membership.members:
            if member.session != session and member.worker not in self.coordinator.work.tasks.assigned:
                member.idle = True
        for _ in range(100):
            task = self.task(session)
            if task.kind == kind:
                return task
            self.do(session, task)
        raise AssertionError(f"no task {pb.TaskKind.Name(kind)} came")

    def run(self, sessions: list[int], turns: int = 1_000) -> None:
        """Let the workers carry out tasks in turn until the job is over."""
        for turn in range(turns):
            if self.state.phase in OVER:
                return
            session = sessions[turn % len(sessions)]
            self.do(session, self.task(session))
        raise AssertionError(f"still {self.state.phase} after {turns} turns")
