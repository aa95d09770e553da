"""The control plane over gRPC: translates calls to the coordinator, and waits where a caller must wait."""

from __future__ import annotations

import urllib.parse
from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.access.job_tokens import is_loopback
from downpour.protos.barrier import is_answered
from downpour.protos.errors import DeadlineExceeded, DownpourError, Unreachable
from downpour.protos.status_codes import status_of
from downpour.protos.system import clock
from downpour.ps.control_plane.effects import Effects, JobChange
from downpour.ps.control_plane.messages import ProgressReport, job_description
from downpour.ps.control_plane.model_upload import receive_model
from downpour.ps.control_plane.operator_calls import MAX_REASON, Context, OperatorCalls, with_status
from downpour.ps.control_plane.recorded_leases import RecordedLeases
from downpour.ps.control_plane.shard_link import ShardLinks
from downpour.ps.coordinator.admission import check_protocol
from downpour.ps.coordinator.coordinator import Coordinator
from downpour.ps.coordinator.phase import OVER

MAX_WAIT_S = 10.0  # of a long poll
JOIN_TIMEOUT_S = 60.0


def host_of(peer: str) -> str:
    """Return the host of gRPC's name of a caller, such as `ipv4:10.0.0.2:4711`; empty for this machine."""
    kind, _, address = urllib.parse.unquote(peer).partition(":")
    return "" if kind not in ("ipv4", "ipv6") or is_loopback(address) else address.rpartition(":")[0]


class CoordinatorServicer(OperatorCalls):
    """Serves the coordinator over gRPC. Every call is one turn of the event loop, or several turns if it must wait.

    Each turn delivers its effects before its reply is sent.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        effects: Effects,
        links: ShardLinks,
        change: JobChange,
        report: ProgressReport,
        model_path: Path,
        leases: RecordedLeases,
    ) -> None:
        """Create a servicer of one job.

        Args:
            coordinator: The coordinator of the job.
            effects: The object that delivers commands to the shards and events from them.
            links: The links to the shards of other processes.
            change: The object to notify when the job has changed.
            report: The builder of progress messages.
            model_path: The path to which an uploaded model is written.
            leases: The tasks of the workers.
        """
        super().__init__(coordinator, effects, change)
        self._links, self._report, self._model_path, self._leases = links, report, model_path, leases

    # ------------------------------------------------------------------ workers

    @with_status
    async def Describe(self, request: pb.DescribeRequest, context: Context) -> pb.JobDescription:
        """Return the description of the job."""
        check_protocol(request.protocol)
        description = job_description(self._coordinator)
        if self._job.layout is not None:
            description.layout.CopyFrom(self._job.layout.to_proto())
        return description

    @with_status
    async def Register(self, request: pb.RegisterRequest, context: Context) -> pb.RegisterReply:
        """Open a session, after every shard has joined and has acknowledged the new worker."""
        job, work = self._job, self._coordinator.work
        check_protocol(request.protocol)
        if not await self._change.wait_until(lambda: job.is_open, JOIN_TIMEOUT_S):
            missing = ", ".join(str(shard) for shard in range(job.settings.shards) if shard not in job.shards)
            raise DeadlineExceeded(
                f"all {job.settings.shards} shards must join within {JOIN_TIMEOUT_S:.0f} s; missing: {missing}. Start "
                "each of them with --shard NUMBER and --coordinator ADDRESS."
            )
        past = await self._past_reply(request)
        if past is not None:
            return past
        member = self._turn(lambda: self._coordinator.register(request, clock.monotonic()))
        number = job.membership.number
        self._change.notify()

        def known() -> bool:
            if job.membership.get(member.worker) is not member:
                return True
            job.membership.renew(member, clock.monotonic())  # it sends no heartbeat before it knows its session
            return job.shards.settled(number)

        if not await self._change.wait_until(lambda: known() and work.committed, JOIN_TIMEOUT_S):
            self._turn(lambda: self._coordinator.leave(member.worker, clock.monotonic()))
            missing = ", ".join(str(shard) for shard in job.shards.unsettled(number))
            raise DeadlineExceeded(
                f"every shard must acknowledge a new worker within {JOIN_TIMEOUT_S:.0f} s; "
                f"missing: {missing or 'none'}. Look at the logs of these shards."
            )
        if job.membership.get(member.worker) is not member:
            raise Unreachable("the job has just returned to its last checkpoint: register again.")
        return pb.RegisterReply(
            worker=member.worker,
            incarnation=member.incarnation,
            session=member.session,
            shards=job.shards.addresses(job.generation),
            decisions=work.decisions,
            epoch_begun=work.epoch_begun,
            epoch_ending=work.epoch_ending,
            initial_epoch=work.initial_epoch,
        )

    async def _past_reply(self, request: pb.RegisterRequest) -> pb.RegisterReply | None:
        """Wait until a worker may register; return the reply to it if its call of `fit` is over.

        The weights with which a call has ended are kept in a file before a worker learns that it is over.
        """
        work = self._coordinator.work
        past, generation = work.past_reply(request), self._job.generation
        if past is not None and request.fit_call == work.completed_call:
            kept = await self._change.wait_until(lambda: work.committed, JOIN_TIMEOUT_S)
            if not kept or self._job.generation != generation:
                raise Unreachable("the end of this call of fit is not on the disk yet: register again.")
        if past is None and not await self._change.wait_until(lambda: work.may_register(request), JOIN_TIMEOUT_S):
            raise DeadlineExceeded(
                f"all workers must leave the call of fit before this one within {JOIN_TIMEOUT_S:.0f} s of the first "
                "that has: one has not."
            )
        return past

    @with_status
    async def Ready(self, request: pb.ReadyRequest, context: Context) -> pb.ReadyReply:
        """Wait, as a long poll, until the worker must initialise the weights, may train, or the job is over."""
        reply = self._turn(lambda: self._coordinator.ready(request, clock.monotonic()))
        if request.compiled or request.initialised:
            self._change.notify()

        def has_news() -> bool:
            nonlocal reply
            reply = self._turn(lambda: self._coordinator.ready(request, clock.monotonic()))
            return reply.initialise or reply.start or reply.end

        await self._change.wait_until(has_news, MAX_WAIT_S / 2)
        return reply

    @with_status
    async def Heartbeat(self, request: pb.HeartbeatRequest, context: Context) -> pb.HeartbeatReply:
        """Renew the session of a worker that is alive."""
        return self._coordinator.heartbeat(request.session, clock.monotonic())

    @with_status
    async def Lease(self, request: pb.LeaseRequest, context: Context) -> pb.Task:
        """Wait for a task, as a long poll."""
        if request.used:
            self._turn(lambda: self._coordinator.samples_reported(request, clock.monotonic()))
            self._change.notify()
            return pb.Task(kind=pb.WAIT)

        member = self._job.membership.of_session(request.session)
        member.polls += not request.ahead
        poll = member.polls

        def next_task() -> pb.Task:
            return self._leases.next_task(request)

        task = self._turn(next_task)
        if task.kind == pb.WAIT or request.batches_per_push:
            self._change.notify()  # one more worker is idle, perhaps the last; or others may learn when workers push

        def has_task() -> bool:
            nonlocal task
            # The caller has gone, or asks again because its connection broke: it would not receive the task.
            if context.done() or member.polls != poll:
                return True
            task = self._turn(next_task)
            return task.kind != pb.WAIT

        if task.kind == pb.WAIT and (self._leases.follows or not request.ahead):
            await self._change.wait_until(has_task, min(max(request.wait_s, 0.0), MAX_WAIT_S))
        return task

    @with_status
    async def Report(self, request: pb.ReportRequest, context: Context) -> pb.ReportReply:
        """Record the result of an evaluation."""
        self._turn(lambda: self._coordinator.report(request, clock.monotonic()))
        self._change.notify()
        return pb.ReportReply()

    @with_status
    async def Upload(self, chunks: AsyncIterator[pb.UploadChunk], context: Context) -> pb.UploadReply:
        """Receive the trained model; the file appears under its name only once it is complete."""
        try:
            return pb.UploadReply(bytes=await receive_model(self._coordinator, self._model_path, chunks))
        finally:
            self._change.notify()

    @with_status
    async def Barrier(self, request: pb.BarrierRequest, context: Context) -> pb.BarrierReply:
        """Wait, as a long poll, for the other workers and then for the decision of worker 0."""
        coordinator = self._coordinator
        reply = self._turn(lambda: coordinator.meet(request, clock.monotonic()))
        self._change.notify()

        def has_news() -> bool:
            nonlocal reply
            if context.done():
                return True
            reply = self._turn(lambda: coordinator.meet(request, clock.monotonic()))
            is_leader = coordinator.work.is_leader(request.session)
            return is_answered(request, reply, is_leader) or reply.HasField("failure") or self._job.phase in OVER

        await self._change.wait_until(has_news, MAX_WAIT_S / 2)
        return reply

    @with_status
    async def SetLearningRates(self, request: pb.SetLearningRatesRequest, context: Context) -> pb.SetLearningRatesReply:
        """Set the learning rate of later updates."""
        self._turn(lambda: self._coordinator.set_rates(request, clock.monotonic()))
        return pb.SetLearningRatesReply()

    @with_status
    async def Leave(self, request: pb.LeaveRequest, context: Context) -> pb.LeaveReply:
        """End the session of a worker, whose unused samples become available to the other workers."""
        coordinator = self._coordinator
        member = self._job.membership.of_session(request.session)
        note, reason = "", request.reason[:MAX_REASON]
        if request.failed:
            note = self._job.notes.of_failure(member.worker, reason)
            coordinator.work.worker_failed(member.worker, request.error_type, reason)
        coordinator.add_times(request.step_s, request.exchange_s)
        self._turn(lambda: coordinator.leave(member.worker, clock.monotonic(), note))
        self._change.notify()
        return pb.LeaveReply()

    # ------------------------------------------------------------------ watchers

    @with_status
    async def Status(self, request: pb.StatusRequest, context: Context) -> pb.Progress:
        """Return the progress of the job now."""
        return self._report.message(clock.monotonic())

    async def Watch(self, request: pb.WatchRequest, context: Context) -> AsyncIterator[pb.Progress]:
        """Yield the progress of the job at intervals until the job is over."""
        every_s = min(max(request.every_s, 0.05), 60.0)
        notes = events = 0
        with (
            self._report.feed.subscribed() if request.records else nullcontext() as subscription,
            self._launchers.counted() if request.launcher else nullcontext(),
        ):
            while True:
                over = self._job.phase in OVER
                progress = self._report.message(clock.monotonic(), notes, events)
                if subscription is not None:
                    self._report.add_records(progress, subscription)
                # Before the message is sent: more may be added in the meantime.
                notes, events = self._job.notes.total, self._job.events.total
                yield progress
                if over:
                    return
                await self._change.wait_until(lambda: self._job.phase in OVER, every_s)

    # ------------------------------------------------------------------ shards

    async def ShardLink(self, events: AsyncIterator[pb.ShardEvent], context: Context) -> AsyncIterator[pb.ShardCommand]:
        """Serve the link to a shard in another process."""
        try:
            async for command in self._links.serve(events, host_of(context.peer())):
                yield command
        except DownpourError as error:
            await context.abort(*status_of(error))
