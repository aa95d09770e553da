"""A coordinator without a network: shards that answer commands when told to, a clock that a test moves."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from typing import Any

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.channel import PROTOCOL
from downpour.protos.layout import TRAINED, Layout
from downpour.ps.config import ServerSettings
from downpour.ps.coordinator.coordinator import Coordinator
from downpour.ps.coordinator.phase import OVER, Phase

LAYOUT = Layout.of([("w", (6,), TRAINED)])
EVERYTHING = Counter((epoch, position) for epoch in range(2) for position in range(20))
DATA = pb.DatasetInfo(name="tiny", checksum="c" * 64, train_samples=20, validation_samples=4, test_samples=4)


class PureJob:
    """A job whose shards answer at once, unless `prompt` is false; then `answer` lets them."""

    def __init__(self, prompt: bool = True, **settings: Any) -> None:
        given = {"epochs": 2, "workers": 2, "batch_size": 4, "session_s": 10.0, "lease_batches": 2, **settings}
        self.settings = ServerSettings(**given)
        self.now = 0.0
        self.commands: list[pb.ShardCommand] = []
        self.unanswered: deque[pb.ShardCommand] = deque()
        self.prompt = prompt
        self.used: Counter[tuple[int, int]] = Counter()
        self.reports: list[tuple[int, int]] = []
        self.coordinator = Coordinator(self.settings, "job-1", itertools.count(1000).__next__, self._send)
        for shard in range(self.settings.shards):
            self.coordinator.shards.add(pb.ShardAddress(shard=shard, address=f"host:{shard}", generation=1))

    def phase(self) -> Phase:
        return self.coordinator.phase

    def _send(self, command: pb.ShardCommand) -> None:
        self.commands.append(command)
        self.unanswered.append(command)
        if self.prompt:
            self.answer()

    def answer(self) -> None:
        """Every shard does what it was told and says so."""
        while self.unanswered:
            command = self.unanswered.popleft()
            for shard in range(self.settings.shards):
                if command.HasField("view"):
                    self.event(shard, view_seen=command.view.number)
                if command.pin:
                    self.event(shard, pinned=command.pin)

    def event(self, shard: int, **fields: Any) -> None:
        self.coordinator.shard_event(shard, pb.ShardEvent(**fields), self.now)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.coordinator.tick(self.now)

    @property
    def pinned(self) -> set[int]:
        """Pins that no shard has been told to let go."""
        pins = [command.pin for command in self.commands if command.pin]
        return set(pins) - {command.unpin for command in self.commands if command.unpin}

    # ------------------------------------------------------------------ workers

    def request(self, **fields: Any) -> pb.RegisterRequest:
        base = pb.RegisterRequest(protocol=PROTOCOL, job="job-1", layout=LAYOUT.to_proto(), data=DATA)
        base.MergeFrom(pb.RegisterRequest(**fields))
        return base

    def join(self, worker: int | None = None, **fields: Any) -> int:
        """Registers; returns the session."""
        return self.coordinator.register(self.request(worker=worker, **fields), self.now).session

    def ready(self, session: int, initialised: bool = False, warm: bool = True) -> pb.ReadyReply:
        return self.coordinator.ready(
            pb.ReadyRequest(session=session, initialised=initialised, compiled=warm), self.now
        )

    def initialise(self) -> None:
        for shard in range(self.settings.shards):
            self.event(shard, initialised=True)

    def start(self, workers: int = 2) -> list[int]:
        """Brings the job to training; returns the sessions."""
        sessions = [self.join() for _ in range(workers)]
        assert self.ready(sessions[0]).initialise
        self.initialise()
        for session in sessions:
            self.ready(session, initialised=True)
        assert all(self.ready(session).start for session in sessions)
        return sessions

    def task(self, session: int) -> pb.Task:
        return self.coordinator.next_task(session, self.now)

    def use(self, session: int, task: pb.Task, start: int, stop: int) -> None:
        """What the server does with a push for `[start, stop)` of a lease."""
        worker = self.coordinator.membership.of_session(session).worker
        assert self.coordinator.ledger is not None
        self.coordinator.ledger.check(task.lease, worker, task.epoch, start, stop)
        self.coordinator.used(worker, task.lease, task.epoch, start, stop, self.now)
        self.used.update((task.epoch, position) for position in range(start, stop))

    def report(self, session: int, task: pb.Task, accuracy: float = 0.5) -> None:
        evaluation = pb.Evaluation(samples=4, loss=1.0, accuracy=accuracy)
        request = pb.ReportRequest(session=session, kind=task.kind, epoch=task.epoch, validation=evaluation)
        if task.kind == pb.FINISH:
            request.test.CopyFrom(evaluation)
        self.coordinator.report(request, self.now)
        self.reports.append((task.kind, task.epoch))

    def do(self, session: int, task: pb.Task, batches: int = 1_000_000) -> None:
        """Does a task, of a lease at most so many batches."""
        if task.kind == pb.TRAIN:
            for start in range(task.start, task.stop, 4)[:batches]:
                self.use(session, task, start, min(start + 4, task.stop))
        elif task.kind in (pb.VALIDATE, pb.FINISH):
            self.report(session, task)

    def take(self, session: int, kind: pb.TaskKind) -> pb.Task:
        """The session's next task of a kind; it does the others before, while all other workers wait."""
        for member in self.coordinator.membership.members:
            if member.session != session and member.worker not in self.coordinator.tasks.assigned:
                member.idle = True
        for _ in range(100):
            task = self.task(session)
            if task.kind == kind:
                return task
            self.do(session, task)
        raise AssertionError(f"no task {pb.TaskKind.Name(kind)} came")

    def run(self, sessions: list[int], turns: int = 1_000) -> None:
        """Workers take and do tasks in turns until the job is over."""
        for turn in range(turns):
            if self.coordinator.phase in OVER:
                return
            session = sessions[turn % len(sessions)]
            self.do(session, self.task(session))
        raise AssertionError(f"still {self.coordinator.phase} after {turns} turns")
