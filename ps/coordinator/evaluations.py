"""Evaluations as tasks for workers, each on weights that every shard has pinned.

This module is pure: it does no I/O and reads no clock.
"""

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
    """The evaluation tasks of a job: first pinned, then waiting for a worker, then assigned to one.

    Attributes:
        assigned: The task that each worker has.
    """

    def __init__(self, epochs: int, shards: int, send: Callable[..., None]) -> None:
        """Create a queue without tasks.

        Args:
            epochs: The number of epochs of the job.
            shards: The number of shards of the job.
            send: Sends a command with the given fields to every shard.
        """
        self.assigned: dict[int, pb.Task] = {}
        self._epochs, self._shards, self._send = epochs, shards, send
        self._closed = 0
        self._pins: dict[int, _Pin] = {}
        self._waiting: deque[pb.Task] = deque()

    @property
    def under_way(self) -> bool:
        """Return whether any task is pinned, waiting or assigned."""
        return bool(self._pins or self._waiting or self.assigned)

    @property
    def waiting(self) -> bool:
        """Return whether a task waits for a worker."""
        return bool(self._waiting)

    @property
    def closed_epochs(self) -> int:
        """Return the number of epochs whose weights have been evaluated, or need no evaluation."""
        waiting = [task.epoch for task in (*self._waiting, *self.assigned.values()) if task.kind == pb.VALIDATE]
        pinned = [pin.task.epoch for pin in self._pins.values() if pin.task.kind == pb.VALIDATE]
        return min([self._closed, *waiting, *pinned])

    def clear(self, closed_epochs: int | None = None) -> None:
        """Drop all tasks; with `closed_epochs`, continue as if that number of epochs had been evaluated."""
        for each in (self._pins, self._waiting, self.assigned):
            each.clear()
        if closed_epochs is not None:
            self._closed = closed_epochs

    # ------------------------------------------------------------------ what is to be evaluated

    def close_epochs(self, ledger: Ledger, validate: bool) -> None:
        """Pin, for validation, the weights of every complete epoch but the last.

        Args:
            ledger: The record of the samples that have been used.
            validate: Whether there is a validation split.
        """
        while self._closed < self._epochs - 1 and ledger.complete(self._closed):
            self._closed += 1
            if validate:
                self._pin(pb.Task(kind=pb.VALIDATE, epoch=self._closed - 1, pin=self._closed))

    def finish(self, epoch: int) -> None:
        """Pin the last weights, to be evaluated as those of `epoch`, and saved."""
        self._pin(pb.Task(kind=pb.FINISH, epoch=epoch, pin=self._epochs + 1))

    def _pin(self, task: pb.Task) -> None:
        self._pins[task.pin] = _Pin(task)
        self._send(pin=task.pin)

    def pinned(self, number: int, shard: int) -> None:
        """Record that a shard has pinned its weights under a number."""
        if number in self._pins:
            self._pins[number].shards.add(shard)

    def collect(self) -> None:
        """Make tasks whose weights every shard has pinned available to workers."""
        for number, pin in list(self._pins.items()):
            if len(pin.shards) == self._shards:
                del self._pins[number]
                self._waiting.append(pin.task)

    # ------------------------------------------------------------------ who evaluates it

    def take(self, worker: int) -> pb.Task:
        """Assign the next task to a worker; there must be one."""
        task = self.assigned[worker] = self._waiting.popleft()
        return task

    def done(self, worker: int, request: pb.ReportRequest) -> pb.Task:
        """Remove and return the task whose result a worker reports.

        Raises:
            InvalidRequest: The worker has no such task.
        """
        task = self.assigned.get(worker)
        if task is None or task.kind != request.kind or task.epoch != request.epoch:
            raise InvalidRequest(
                f"a report must be for the task that worker {worker} was given; received one of "
                f"{_name_of(request.kind)}, epoch {request.epoch}. Ask for a task."
            )
        del self.assigned[worker]
        self._unpin(task)
        return task

    def give_back(self, worker: int, hurried: bool) -> None:
        """Return a worker's task to the queue of waiting tasks; a validation is dropped if `hurried`."""
        task = self.assigned.pop(worker, None)
        if task is None:
            return
        if task.kind == pb.VALIDATE and hurried:
            self._unpin(task)
        else:
            self._waiting.appendleft(task)

    def drop_waiting(self) -> None:
        """Drop the tasks that no worker has."""
        for task in self._waiting:
            self._unpin(task)
        self._waiting.clear()

    def _unpin(self, task: pb.Task) -> None:
        self._send(unpin=task.pin)


def stagnates(evaluations: Mapping[int, pb.Evaluation], patience: int) -> bool:
    """Return whether the lowest validation loss is `patience` or more epochs old; never if `patience` is 0."""
    if not patience or not evaluations:
        return False
    best = min(evaluations, key=lambda epoch: (evaluations[epoch].loss, epoch))
    return max(evaluations) - best >= patience


def _name_of(kind: int) -> str:
    """Return the name of a kind of task; a number that has none stands for itself."""
    return pb.TaskKind.Name(kind) if kind in pb.TaskKind.values() else str(kind)
