"""The calls by which a user operates a job: stop, pause, change settings, take a checkpoint, add a worker."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos import parameter_server_pb2_grpc as rpc
from downpour.protos.errors import DeadlineExceeded, DownpourError, InvalidRequest, ServerFault, to_proto
from downpour.protos.sentences.sentence import OPERATOR_REQUESTED, USER_REQUESTED, sentence
from downpour.protos.status_codes import metadata_of, status_of
from downpour.protos.system import clock
from downpour.ps.control_plane.effects import Effects, JobChange
from downpour.ps.coordinator.coordinator import Coordinator

MAX_REASON = 500  # limit for a caller's reason, in characters, because it is kept in the notes
MAX_VALUE = 100  # limit for a mode, a compensation or an identifier, in characters
MADE_WITHIN_S = 20.0  # for a change or a checkpoint to be made, before the reply is that it is late
POLL_S = 0.05
SAME = sentence("same_settings")
REASONS = {"": sentence("asked_to_stop"), **{str(each): each for each in (OPERATOR_REQUESTED, USER_REQUESTED)}}
Context = grpc.aio.ServicerContext[Any, Any]
Answer = TypeVar("Answer")


def with_status(call: Callable[..., Awaitable[Answer]]) -> Callable[..., Awaitable[Answer]]:
    """Return the call with every `DownpourError` turned into its status code."""

    @functools.wraps(call)
    async def wrapped(self: Any, request: Any, context: Context) -> Answer:
        try:
            answer = await call(self, request, context)
        except DownpourError as error:
            await context.abort(*status_of(error), metadata_of(error))
            raise  # abort has raised already; mypy does not know
        return answer

    return wrapped


class Launchers:
    """Counts the watchers of a job that start workers if the job wants more of them."""

    def __init__(self) -> None:
        """Create a count of 0."""
        self._count = 0

    @property
    def present(self) -> bool:
        """Whether a launcher watches the job."""
        return self._count > 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count a launcher within the block."""
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1


class OperatorCalls(rpc.CoordinatorServicer):
    """Serves the calls by which a user operates a job. A call that is refused names the reason."""

    def __init__(self, coordinator: Coordinator, effects: Effects, change: JobChange) -> None:
        """Create the calls of one job.

        Args:
            coordinator: The coordinator of the job.
            effects: The object that delivers commands to the shards and events from them.
            change: The object to notify when the job has changed.
        """
        self._coordinator, self._job, self._effects, self._change = coordinator, coordinator.job, effects, change
        self._launchers = Launchers()

    def _turn(self, act: Callable[[], Answer]) -> Answer:
        """Call a method of the coordinator and deliver its effects, even if it raises."""
        try:
            return act()
        finally:
            self._effects.deliver()

    @with_status
    async def Stop(self, request: pb.StopRequest, context: Context) -> pb.StopReply:
        """Drain the job, or end it at once."""
        reason = REASONS.get(request.reason, request.reason[:MAX_REASON])
        if request.now:
            self._coordinator.stop_at_once(reason)
        else:
            asked = not request.complete
            self._turn(lambda: self._coordinator.drain(reason, clock.monotonic(), asked))
        self._change.notify()
        return pb.StopReply()

    @with_status
    async def Pause(self, request: pb.PauseRequest, context: Context) -> pb.PauseReply:
        """Pause or resume the job."""
        self._turn(lambda: self._coordinator.operator.pause(request.paused, clock.monotonic()))
        self._change.notify()
        return pb.PauseReply()

    @with_status
    async def Change(self, request: pb.ChangeRequest, context: Context) -> pb.ChangeReply:
        """Change settings of the job, and return once all shards have received the change."""
        fields = ("mode", "staleness_policy", "learning_rate")
        wanted = {name: getattr(request, name) for name in fields if request.HasField(name)}
        if any(isinstance(value, str) and len(value) > MAX_VALUE for value in wanted.values()):
            raise InvalidRequest(sentence("change_too_long", most=MAX_VALUE))
        change = self._turn(lambda: self._coordinator.operator.change(wanted))
        if change is None:
            return pb.ChangeReply(text=SAME, sentence=to_proto(SAME))
        await self._until(lambda: self._job.pending_change is not change, "change_late")
        if len(self._job.changes) < change.number:
            raise ServerFault(sentence("change_not_made", reason=self._job.notes.newest))
        version = self._job.changes[change.number - 1].version or 0
        return pb.ChangeReply(number=change.number, version=version, text=change.text, sentence=to_proto(change.text))

    @with_status
    async def TakeCheckpoint(self, request: pb.CheckpointRequest, context: Context) -> pb.CheckpointReply:
        """Take a checkpoint, and return once it is written."""
        self._turn(self._coordinator.operator.request_checkpoint)
        await self._until(lambda: not self._job.checkpoint_requested, "checkpoint_late")
        if self._job.checkpoint_failure:
            raise ServerFault(sentence("checkpoint_not_written", reason=self._job.checkpoint_failure))
        number, version = self._job.last_checkpoint
        self._job.notes.append(sentence("checkpoint_requested", number=number, version=version))
        self._change.notify()
        return pb.CheckpointReply(number=number, version=version)

    @with_status
    async def AddWorker(self, request: pb.AddWorkerRequest, context: Context) -> pb.AddWorkerReply:
        """Ask the launcher for one more worker."""
        launched = self._launchers.present
        wanted = self._turn(lambda: self._coordinator.operator.add_worker(request.request[:MAX_VALUE], launched))
        self._change.notify()
        return pb.AddWorkerReply(workers=wanted)

    async def _until(self, made: Callable[[], bool], late: str) -> None:
        deadline = clock.monotonic() + MADE_WITHIN_S
        while not made():
            if clock.monotonic() > deadline:
                raise DeadlineExceeded(sentence(late, seconds=int(MADE_WITHIN_S)))
            await self._change.wait_until(made, POLL_S)
