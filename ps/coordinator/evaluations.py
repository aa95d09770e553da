"""Evaluations as tasks on loan to workers, each on weights that every shard has pinned. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest
from downpour.ps.coordinator.ledger import Ledger


@dataclass
class _Pin:
    task: pb.Task
    shards: set[int] = field(default_factory=set)  # that have pinned


class Evaluations:
    """The tasks of a job: first pinned, then waiting for a worker, then assigned to one.

    Attributes:
        assigned: The task that a worker has.
    """

    def __init__(self, epochs: int, shards: int, send: Callable[[pb.ShardCommand], None]) -> None:
        """Nothing is to be evaluated.

        Args:
            epochs: Of the job.
            shards: Of the job.
            send: Sends a command to every shard.
        """
        self.assigned: dict[int, pb.Task] = {}
        self._epochs, self._shards, self._send = epochs, shards, send
        self._closed = 0
        self._pins: dict[int, _Pin] = {}
        self._waiting: deque[pb.Task] = deque()

    @property
    def under_way(self) -> bool:
        """Whether anything is pinned, waiting or assigned."""
        return bool(self._pins or self._waiting or self.assigned)

    @property
    def waiting(self) -> bool:
        """Whether a worker could have a task."""
        return bool(self._waiting)

    @property
    def closed_epochs(self) -> int:
        """Epochs whose weights have been evaluated, or have no need of it."""
        waiting = [task.epoch for task in (*self._waiting, *self.assigned.values()) if task.kind == pb.VALIDATE]
        pinned = [pin.task.epoch for pin in self._pins.values() if pin.task.kind == pb.VALIDATE]
        return min([self._closed, *waiting, *pinned])

    def clear(self, closed_epochs: int | None = None) -> None:
        """Forgets all tasks; `closed_epochs` are behind the job, if given."""
        for each in (self._pins, self._waiting, self.assigned):
            each.clear()
        if closed_epochs is not None:
            self._closed = closed_epochs

    # ------------------------------------------------------------------ what is to be evaluated

    def close_epochs(self, ledger: Ledger, validate: bool) -> None:
        """Pins the weights of every epoch whose last sample has been used, to be validated; not of the last epoch."""
        while self._closed < self._epochs - 1 and ledger.complete(self._closed):
            self._closed += 1
            if validate:
                self._pin(pb.Task(kind=pb.VALIDATE, epoch=self._closed - 1, pin=self._closed))

    def finish(self, epoch: int) -> None:
        """Pins the last weights, to be evaluated as those of `epoch`, and saved."""
        self._pin(pb.Task(kind=pb.FINISH, epoch=epoch, pin=self._epochs + 1))

    def _pin(self, task: pb.Task) -> None:
        self._pins[task.pin] = _Pin(task)
        self._send(pb.ShardCommand(pin=task.pin))

    def pinned(self, number: int, shard: int) -> None:
        """A shard has pinned its weights."""
        if number in self._pins:
            self._pins[number].shards.add(shard)

    def collect(self) -> None:
        """What every shard has pinned waits for a worker."""
        for number, pin in list(self._pins.items()):
            if len(pin.shards) == self._shards:
                del self._pins[number]
                self._waiting.append(pin.task)

    # ------------------------------------------------------------------ who evaluates it

    def take(self, worker: int) -> pb.Task:
        """Assigns the next task to a worker; there must be one."""
        task = self.assigned[worker] = self._waiting.popleft()
        return task

    def done(self, worker: int, request: pb.ReportRequest) -> pb.Task:
        """A worker reports the result of its task; returns that.

        Raises:
            InvalidRequest: The worker has no such task.
        """
        task = self.assigned.get(worker)
        if task is None or task.kind != request.kind or task.epoch != request.epoch:
            raise InvalidRequest(
                f"a report must be of the task that worker {worker} was given; received one of "
                f"{pb.TaskKind.Name(request.kind)}, epoch {request.epoch}. Ask for a task."
            )
        del self.assigned[worker]
        self._unpin(task)
        return task

    def give_back(self, worker: int, hurried: bool) -> None:
        """A worker gives up its task; another gets it, unless it is a validation that nobody has time for."""
        task = self.assigned.pop(worker, None)
        if task is None:
            return
        if task.kind == pb.VALIDATE and hurried:
            self._unpin(task)
        else:
            self._waiting.appendleft(task)

    def drop_waiting(self) -> None:
        """Tasks that no worker has are given up."""
        for task in self._waiting:
            self._unpin(task)
        self._waiting.clear()

    def _unpin(self, task: pb.Task) -> None:
        self._send(pb.ShardCommand(unpin=task.pin))


def stagnates(evaluations: Mapping[int, pb.Evaluation], patience: int) -> bool:
    """Whether the lowest validation loss is `patience` epochs or more behind; 0 waits for ever."""
    if not patience or not evaluations:
        return False
    best = min(evaluations, key=lambda epoch: (evaluations[epoch].loss, epoch))
    return max(evaluations) - best >= patience
