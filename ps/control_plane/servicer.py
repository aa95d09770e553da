"""The control plane over gRPC: translates calls to the coordinator and waits where it must."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import grpc

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos import parameter_server_pb2_grpc as rpc
from downpour.protos.errors import DeadlineExceeded, DownpourError, Unreachable, Unsupported, status_of
from downpour.ps.control_plane.messages import described
from downpour.ps.control_plane.model_upload import take_model
from downpour.ps.control_plane.progress import ProgressReport
from downpour.ps.control_plane.shard_link import ShardLinks
from downpour.ps.coordinator.admission import check_protocol
from downpour.ps.coordinator.coordinator import Coordinator
from downpour.ps.coordinator.fit_coordinator import ScriptCoordinator
from downpour.ps.coordinator.phase import OVER

LONGEST_WAIT_S = 10.0
JOIN_TIMEOUT_S = 60.0
LONGEST_REASON = 500  # characters of what a caller says, which stays in the notes
Context = grpc.aio.ServicerContext[Any, Any]
Answer = TypeVar("Answer")


def told(call: Callable[..., Awaitable[Answer]]) -> Callable[..., Awaitable[Answer]]:
    """Turns an error of the call into its status code."""

    @functools.wraps(call)
    async def guarded(self: CoordinatorServicer, request: Any, context: Context) -> Answer:
        try:
            answer = await call(self, request, context)
        except DownpourError as error:
            await context.abort(*status_of(error))
            raise  # abort has raised already; mypy does not know
        return answer

    return guarded


class CoordinatorServicer(rpc.CoordinatorServicer):
    """Every call is one turn of the loop over the pure coordinator; only waiting happens here."""

    def __init__(
        self,
        coordinator: Coordinator,
        report: ProgressReport,
        lines: ShardLinks,
        model_path: Path,
        stop: Callable[[str], None],
    ) -> None:
        """Serves one job.

        Args:
            coordinator: The job.
            report: Builds progress messages.
            lines: To the shards of other processes.
            model_path: Where an uploaded model goes.
            stop: Ends the process at once.
        """
        self._coordinator, self._report, self._lines = coordinator, report, lines
        self._model_path, self._stop = model_path, stop
        self._bell = asyncio.Event()

    def changed(self) -> None:
        """Wakes everybody who waits for the job to change."""
        self._bell.set()
        self._bell = asyncio.Event()

    async def wait_until(self, ready: Callable[[], bool], wait_s: float) -> bool:
        """Waits until something holds, at most `wait_s`; returns whether it does."""
        deadline = time.monotonic() + wait_s
        while not ready():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            try:
                await asyncio.wait_for(self._bell.wait(), left)
            except TimeoutError:
                return ready()
        return True

    # ------------------------------------------------------------------ workers

    @told
    async def Describe(self, request: pb.DescribeRequest, context: Context) -> pb.JobDescription:
        """What the job is."""
        check_protocol(request.protocol)
        return described(self._coordinator)

    @told
    async def Register(self, request: pb.RegisterRequest, context: Context) -> pb.RegisterReply:
        """Opens a session, once every shard is there and knows of it."""
        coordinator = self._coordinator
        if not await self.wait_until(lambda: coordinator.open, JOIN_TIMEOUT_S):
            raise DeadlineExceeded(
                f"all {coordinator.settings.shards} shards must join within {JOIN_TIMEOUT_S:.0f} s; so far "
                f"{list(coordinator.shards)} have. Start the others with --coordinator."
            )
        if isinstance(coordinator, ScriptCoordinator):
            past = await self._stage_of(coordinator, request)
            if past is not None:
                return pb.RegisterReply(fit_completed=True, decisions=past)
        member = coordinator.register(request, time.monotonic())
        number = coordinator.membership.number
        self.changed()

        def known() -> bool:
            return coordinator.shards.settled(number) or coordinator.membership.get(member.worker) is not member

        if not await self.wait_until(known, JOIN_TIMEOUT_S):
            coordinator.leave(member.worker, time.monotonic())
            raise DeadlineExceeded(
                f"every shard must hear of a new worker within {JOIN_TIMEOUT_S:.0f} s: one is silent."
            )
        if coordinator.membership.get(member.worker) is not member:
            raise Unreachable("the job has just returned to its last checkpoint: register again.")
        return pb.RegisterReply(
            worker=member.worker,
            incarnation=member.incarnation,
            session=member.session,
            shards=coordinator.shards.addresses(coordinator.generation),
            decisions=coordinator.decisions if isinstance(coordinator, ScriptCoordinator) else (),
        )

    async def _stage_of(self, coordinator: ScriptCoordinator, request: pb.RegisterRequest) -> list[pb.Decision] | None:
        """Waits until a worker of a script may join; the decisions of its call of `fit` if that is over."""
        check_protocol(request.protocol)
        past = coordinator.past(request)
        if past is None and not await self.wait_until(lambda: coordinator.may_register(request), JOIN_TIMEOUT_S):
            raise DeadlineExceeded(
                f"all workers must be through with call {coordinator.stage} of fit within {JOIN_TIMEOUT_S:.0f} s of "
                "the first that is: one still is not."
            )
        return past

    @told
    async def Ready(self, request: pb.ReadyRequest, context: Context) -> pb.ReadyReply:
        """Waits a while for something to do."""
        reply = self._coordinator.ready(request, time.monotonic())
        if request.compiled or request.initialised:
            self.changed()

        def news() -> bool:
            nonlocal reply
            reply = self._coordinator.ready(request, time.monotonic())
            return reply.initialise or reply.start or reply.end

        await self.wait_until(news, LONGEST_WAIT_S / 2)
        return reply

    @told
    async def Heartbeat(self, request: pb.HeartbeatRequest, context: Context) -> pb.HeartbeatReply:
        """Renews a session."""
        return self._coordinator.heartbeat(request.session, time.monotonic())

    @told
    async def Lease(self, request: pb.LeaseRequest, context: Context) -> pb.Task:
        """Waits a while for a task."""
        task = self._coordinator.next_task(request.session, time.monotonic())
        if task.kind == pb.WAIT:
            self.changed()  # one more is idle: perhaps the last

        def got_task() -> bool:
            nonlocal task
            if context.done():
                return True  # nobody would hear of the task
            task = self._coordinator.next_task(request.session, time.monotonic())
            return task.kind != pb.WAIT

        if task.kind == pb.WAIT:
            await self.wait_until(got_task, min(max(request.wait_s, 0.0), LONGEST_WAIT_S))
        return task

    @told
    async def Report(self, request: pb.ReportRequest, context: Context) -> pb.ReportReply:
        """Takes the result of an evaluation."""
        self._coordinator.report(request, time.monotonic())
        self.changed()
        return pb.ReportReply()

    @told
    async def Upload(self, chunks: AsyncIterator[pb.UploadChunk], context: Context) -> pb.UploadReply:
        """Takes the trained model; the file appears when it is whole."""
        try:
            return pb.UploadReply(bytes=await take_model(self._coordinator, self._model_path, chunks))
        finally:
            self.changed()

    @told
    async def Barrier(self, request: pb.BarrierRequest, context: Context) -> pb.BarrierReply:
        """Waits a while for the others, and then for worker 0."""
        coordinator = self._script()
        reply = coordinator.meet(request, time.monotonic())
        self.changed()

        def news() -> bool:
            nonlocal reply
            if context.done():
                return True
            reply = coordinator.meet(request, time.monotonic())
            awaited = reply.complete if coordinator.leads(request.session) else reply.HasField("decision")
            return awaited or coordinator.phase in OVER

        await self.wait_until(news, LONGEST_WAIT_S / 2)
        return reply

    @told
    async def SetLearningRates(self, request: pb.SetLearningRatesRequest, context: Context) -> pb.SetLearningRatesReply:
        """Takes the learning rate of the updates to come."""
        self._script().set_rates(request, time.monotonic())
        return pb.SetLearningRatesReply()

    def _script(self) -> ScriptCoordinator:
        if not isinstance(self._coordinator, ScriptCoordinator):
            raise Unsupported("this server trains a job of its own; a script needs one started with --script.")
        return self._coordinator

    @told
    async def Leave(self, request: pb.LeaveRequest, context: Context) -> pb.LeaveReply:
        """Ends a session."""
        member = self._coordinator.membership.of_session(request.session)
        note = f"worker {member.worker} gave up: {request.reason[:LONGEST_REASON]}" if request.failed else ""
        self._coordinator.spent(request.step_s, request.exchange_s)
        self._coordinator.leave(member.worker, time.monotonic(), note)
        self.changed()
        return pb.LeaveReply()

    # ------------------------------------------------------------------ watchers

    @told
    async def Status(self, request: pb.StatusRequest, context: Context) -> pb.Progress:
        """What the job is doing now."""
        return self._report.message(time.monotonic())

    async def Watch(self, request: pb.WatchRequest, context: Context) -> AsyncIterator[pb.Progress]:
        """What the job is doing, again and again until it is over."""
        every_s = min(max(request.every_s, 0.05), 60.0)
        notes = 0
        while True:
            over = self._coordinator.phase in OVER
            yield self._report.message(time.monotonic(), notes)
            notes = len(self._coordinator.notes)
            if over:
                return
            await self.wait_until(lambda: self._coordinator.phase in OVER, every_s)

    @told
    async def Stop(self, request: pb.StopRequest, context: Context) -> pb.StopReply:
        """Drains the job, or ends it at once."""
        reason = request.reason[:LONGEST_REASON] or "asked to stop"
        if request.now:
            self._stop(reason)
        else:
            self._coordinator.drain(reason, time.monotonic())
            self.changed()
        return pb.StopReply()

    # ------------------------------------------------------------------ shards

    async def ShardLink(self, events: AsyncIterator[pb.ShardEvent], context: Context) -> AsyncIterator[pb.ShardCommand]:
        """The line to a shard in another process."""
        try:
            async for command in self._lines.follow(events):
                yield command
        except DownpourError as error:
            await context.abort(*status_of(error))
