"""A script's job without a network: shards that answer at once, workers that call `fit` and meet at barriers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.layout import TRAINED, Layout
from downpour.protos.protocol import PROTOCOL
from downpour.ps.config import ServerSettings
from downpour.ps.coordinator.fit.fit_work import FitWork
from downpour.ps.coordinator.job_factory import new_coordinator
from downpour.ps.coordinator.phase import Phase

LAYOUT = Layout.of([("w", (6,), TRAINED)])
MOMENTUM = {"learning_rate": 0.1, "momentum": 0.5}


class PureFit:
    """Workers of a script whose shards execute every command at once.

    Attributes:
        commands: All commands that the shards have received, oldest first.
        sessions: The session of each worker.
        commits: Whether checkpoints are written at once.
    """

    def __init__(self, workers: int = 2, shards: int = 1, lease_samples: int = 0, **settings: Any) -> None:
        given = {"script": True, "workers": workers, "shards": shards, "session_s": 10.0, **settings}
        self.coordinator = new_coordinator(ServerSettings(**given), "job-1", itertools.count(1000).__next__)
        self.state = self.coordinator.job
        self.now = 0.0
        self.lease_samples = lease_samples
        self.commits = True
        self.commands: list[pb.ShardCommand] = []
        self.sessions: dict[int, int] = {}
        for shard in range(shards):
            self.state.shards.add(pb.ShardAddress(shard=shard, address=f"host:{shard}", generation=1))

    @property
    def work(self) -> FitWork:
        assert isinstance(self.coordinator.work, FitWork)
        return self.coordinator.work

    def phase(self) -> Phase:
        return self.state.phase

    def deliver(self) -> None:
        """Deliver the commands of the outbox to the shards, and their events to the coordinator, until none is left."""
        while self.state.outbox:
            command = self.state.outbox.popleft()
            self.commands.append(command)
            for shard in range(self.state.settings.shards):
                event = pb.ShardEvent(pinned=command.pin)
                if command.HasField("view"):
                    event.view_seen = command.view.number
                self.coordinator.shard_event(shard, event, self.now)
        if self.commits:
            self.work.commit(self.work.revision)

    def request(self, worker: int, fit_call: int = 1, **fields: Any) -> pb.RegisterRequest:
        optimizer = pb.OptimizerSpec(name="momentum", hyperparameters=MOMENTUM, learning_rates=rates(0.1))
        data = pb.DatasetInfo(name="script", checksum="c", train_samples=20, lease_samples=self.lease_samples)
        base = pb.RegisterRequest(
            protocol=PROTOCOL, job="job-1", worker=worker, layout=LAYOUT.to_proto(), data=data, fit_call=fit_call,
            optimizers=[optimizer],
        )  # fmt: skip
        for name, value in fields.items():
            field = getattr(base, name)
            if isinstance(value, list):
                base.ClearField(name)
                getattr(base, name).extend(value)
            elif hasattr(field, "CopyFrom"):
                field.CopyFrom(value)
            else:
                setattr(base, name, value)
        return base

    def join(self, worker: int, fit_call: int = 1, **fields: Any) -> None:
        self.sessions[worker] = self.coordinator.register(self.request(worker, fit_call, **fields), self.now).session
        self.deliver()

    def start(self, workers: int = 2, fit_call: int = 1, **fields: Any) -> None:
        """Start a call of `fit`, and wait until it trains."""
        for worker in range(workers):
            self.join(worker, fit_call, **fields)
        assert self.ready(0).initialise and not self.ready(workers - 1, initialised=workers == 1).initialise
        for shard in range(self.state.settings.shards):
            event = pb.ShardEvent(initialised=True, initialisation=self.state.shards.initialisation)
            self.coordinator.shard_event(shard, event, self.now)
        assert all([self.ready(worker, initialised=True).start for worker in [*range(workers), 0]][-workers:])

    def ready(self, worker: int, initialised: bool = False) -> pb.ReadyReply:
        request = pb.ReadyRequest(session=self.sessions[worker], initialised=initialised, compiled=True)
        reply = self.coordinator.ready(request, self.now)
        self.deliver()
        return reply

    def meet(self, worker: int, epoch: int = 0, values: tuple[float, ...] = (), **fields: Any) -> pb.BarrierReply:
        """Arrive at a barrier, by default that of the metrics, and repeat the request after its effects."""
        fields = {"kind": pb.EPOCH_METRICS, **fields}
        request = pb.BarrierRequest(session=self.sessions[worker], epoch=epoch, values=values, **fields)
        self.coordinator.meet(request, self.now)
        self.deliver()
        return self.coordinator.meet(request, self.now)

    def pass_barrier(self, kind: pb.BarrierKind, epoch: int = 0, workers: int = 2, **decision: Any) -> None:
        """Let all workers arrive at a barrier, worker 0 with its decision."""
        for worker in range(workers):
            self.meet(worker, epoch, kind=kind, decision=None if worker else pb.Decision(**decision))

    def begin_epoch(self, epoch: int = 0, workers: int = 2) -> None:
        """Let all workers pass the barrier before the first batch of an epoch."""
        self.pass_barrier(pb.EPOCH_BEGIN, epoch, workers)

    def finish_epoch(self, epoch: int, workers: int = 2, logs: Mapping[str, float] | None = None) -> None:
        """Let all workers pass the barriers of an epoch, where worker 0 decides to continue."""
        self.begin_epoch(epoch, workers)
        for worker in range(workers):
            self.meet(worker, epoch, (1.0,))
        self.meet(0, epoch, (1.0,), decision=pb.Decision(logs=logs or {}))
        self.pass_barrier(pb.EPOCH_END, epoch, workers, logs=logs or {})

    def finish_fit(self, workers: int = 2) -> None:
        """Let all workers arrive at the barrier at the end of `fit`, and leave."""
        self.pass_barrier(pb.FIT_END, 0, workers, stop=True)
        for worker in range(workers):
            self.coordinator.leave(worker, self.now)
        self.deliver()

    def task(self, worker: int) -> pb.Task:
        task = self.coordinator.next_task(self.sessions[worker], self.now)
        self.deliver()
        return task

    def use(self, worker: int, task: pb.Task) -> None:
        """Mark all samples of a lease as used, as the server does for a push."""
        assert self.work.ledger is not None
        self.work.ledger.check(task.lease, worker, task.epoch, task.start, task.stop)
        self.coordinator.samples_used(worker, task.lease, task.epoch, task.start, task.stop, self.now)
        self.deliver()


def rates(*values: float) -> pb.LearningRates:
    """Return a table of learning rates, one for each number of updates."""
    return pb.LearningRates(updates=range(len(values)), rates=values)
