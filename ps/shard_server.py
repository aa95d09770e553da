"""A shard in a process of its own, and its link to the coordinator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos import parameter_server_pb2_grpc as rpc
from downpour.protos.channel import call_metadata, difference_in_tls, open_aio_channel
from downpour.protos.errors import DeadlineExceeded, Unreachable, Unsupported
from downpour.protos.logs import identify, log
from downpour.protos.status_codes import error_of
from downpour.protos.system import clock
from downpour.ps.config import ServerSettings
from downpour.ps.control_plane.replay_target import ReplayTarget, followed_order
from downpour.ps.data_plane.listeners import Listeners, ListenRequest, open_listeners
from downpour.ps.data_plane.request_handler import RequestHandler
from downpour.ps.data_plane.shard_commands import ShardCommands
from downpour.ps.data_plane.shard_runtime import ShardRuntime
from downpour.ps.data_plane.snapshot import Snapshot, parts
from downpour.ps.endpoints import announce, listen_or_close, on_signals, open_exporter
from downpour.ps.monitoring.job_log import FIRST_S, WAITING_EVERY_S
from downpour.ps.monitoring.prometheus import Durations, ShardMetrics

REPORT_EVERY_S = 0.5
RETRY_S = 0.2
DRAIN_TIMEOUT_S = 8.0  # limit for the coordinator, signalled as well, to drain the job and stop this shard


class CoordinatorLink:
    """Carries the coordinator's commands to the shard and the shard's events to the coordinator.

    Attributes:
        address: The coordinator's `HOST:PORT`.
        connected: Whether the stream is up.
        met: Whether the stream has been up.
    """

    def __init__(self, address: str, runtime: ShardRuntime) -> None:
        """Create a link that is not connected.

        Args:
            address: The coordinator's `HOST:PORT`.
            runtime: The shard.
        """
        self.address, self._runtime, self._commands = address, runtime, ShardCommands(runtime)
        self.connected = self.met = False
        self._events: asyncio.Queue[pb.ShardEvent | Snapshot] = asyncio.Queue()

    def deliver(self) -> None:
        """Send the contents of the shard's outbox in order; a snapshot follows the records that belong to it."""
        outbox = self._runtime.outbox
        while outbox:
            if isinstance(outbox[0], Snapshot):
                self._report()
            self._events.put_nowait(outbox.popleft())

    async def follow(self, joined: pb.ShardAddress, connect_timeout_s: float, reconnect_s: float) -> None:
        """Serve until the coordinator sends the command to stop; reconnect if the stream breaks.

        Args:
            joined: The shard's number and address.
            connect_timeout_s: The time to wait for the coordinator at first, in seconds.
            reconnect_s: The time to wait for the coordinator after the stream has broken, in seconds.

        Raises:
            DownpourError: The coordinator refuses this shard, or does not answer in time.
        """
        deadline = clock.monotonic() + connect_timeout_s
        while not self._commands.stopped.is_set():
            try:
                await self._serve_stream(joined, deadline)
                deadline = clock.monotonic() + reconnect_s
            except Unreachable as error:
                if self.connected:
                    deadline = clock.monotonic() + reconnect_s
                if clock.monotonic() + RETRY_S > deadline:
                    verb, within_s = ("be back", reconnect_s) if self.met else ("answer", connect_timeout_s)
                    raise DeadlineExceeded(
                        f"the coordinator must {verb} at {self.address} within {within_s:g} s; it did not: {error} "
                        "Start shard 0 first and check the address."
                    ) from error
            finally:
                self.connected = False
            await asyncio.sleep(RETRY_S)

    async def _serve_stream(self, joined: pb.ShardAddress, deadline: float) -> None:
        async with open_aio_channel(self.address) as channel:
            timeout_s = max(RETRY_S, deadline - clock.monotonic())
            try:
                await asyncio.wait_for(channel.channel_ready(), timeout_s)
            except TimeoutError:
                raise Unreachable("no process listens there.") from None
            self._drop_events()
            # A new queue, because the previous stream may still be waiting on the old one.
            self._events = asyncio.Queue()
            self._events.put_nowait(pb.ShardEvent(joined=joined))
            reporter = asyncio.create_task(self._report_regularly())
            try:
                events = self._outgoing(self._events)
                async for command in rpc.CoordinatorStub(channel).ShardLink(
                    events, metadata=call_metadata(self.address)
                ):
                    self.connected = self.met = True
                    if command.HasField("job"):
                        identify(job=command.job.job)
                    self._commands.execute(command)
                    self.deliver()
                    if self._commands.stopped.is_set():
                        self._report(stopped=True)
                        await asyncio.sleep(0)
            except grpc.RpcError as failure:
                if not self._commands.stopped.is_set():
                    raise error_of(failure, self.address) from failure
            finally:
                reporter.cancel()
                self._drop_events()

    async def _outgoing(self, events: asyncio.Queue[pb.ShardEvent | Snapshot]) -> AsyncIterator[pb.ShardEvent]:
        while True:
            event = await events.get()
            if isinstance(event, Snapshot):
                try:
                    for part in parts(event.state, event.number):
                        yield pb.ShardEvent(part=part, generation=self._runtime.generation)
                finally:
                    event.state.release()
                continue
            yield event
            if event.stopped:
                return

    def _drop_events(self) -> None:
        """Drop the events that no stream will transmit."""
        while not self._events.empty():
            event = self._events.get_nowait()
            if isinstance(event, Snapshot):
                event.state.release()

    async def _report_regularly(self) -> None:
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            self._report()

    def _report(self, stopped: bool = False) -> None:
        """Send the totals, and the records since the last report."""
        runtime = self._runtime
        records, calls = runtime.records.take(), runtime.calls.take()
        self._events.put_nowait(
            pb.ShardEvent(
                counters=runtime.count(), trace=records, call_log=calls, stopped=stopped, generation=runtime.generation
            )
        )


class ShardProcess:
    """A shard other than shard 0, led by the coordinator in the process of shard 0."""

    def __init__(self, settings: ServerSettings) -> None:
        """Create all parts of this process."""
        assert settings.coordinator is not None
        self._settings = settings
        self._push_times = Durations()
        order = followed_order(settings)
        self.runtime = ShardRuntime(settings.shard, record_push_s=self._push_times.add, order=order)
        self._target = ReplayTarget(settings, order, self.runtime) if order is not None else None
        self._link = CoordinatorLink(settings.coordinator, self.runtime)
        self.handler = RequestHandler(self.runtime, self._link.deliver)
        self._listeners = Listeners(())

    async def serve(self) -> int:
        """Run until the coordinator sends the command to stop, and return the exit code."""
        settings = self._settings
        try:
            exporter = open_exporter(settings, ShardMetrics(self.runtime, self._push_times))
            server, address = await listen_or_close(settings, self._add_services, exporter)
        except BaseException:
            self._listeners.close()
            raise
        identify(process=f"ps-{settings.shard}")
        facts = {"metrics": f"{settings.metrics_host}:{exporter.port}"} if exporter else {}
        announce(address=address, shard=settings.shard, coordinator=settings.coordinator, **facts)
        joined = self._listeners.address(settings.shard, address)
        following = asyncio.create_task(self._link.follow(joined, settings.start_timeout_s, settings.reconnect_s))
        try:
            return await self._until_stopped(following)
        finally:
            if exporter:
                exporter.close()
            await server.stop(grace=0.5)
            self._listeners.close()

    async def _until_stopped(self, following: asyncio.Task[None]) -> int:
        """Wait for the coordinator's command to stop, for a limited time after a signal; return the exit code."""
        signalled = asyncio.Event()
        on_signals(lambda name: signalled.set())
        await self._until_one([following, asyncio.create_task(signalled.wait())])
        if not self._link.met and not following.done():
            log(f"ended by a signal before {self._link.address} had answered: there is nothing to save")
            following.cancel()
            return 0
        deadline = clock.monotonic() + DRAIN_TIMEOUT_S
        while self._link.connected and clock.monotonic() < deadline and not following.done():
            await asyncio.wait([following], timeout=RETRY_S)
        if not following.done():
            log(f"ended by a signal before {self._link.address} had ended the job")
            following.cancel()
            return 1
        following.result()
        return 0

    async def _until_one(self, tasks: list[asyncio.Task[Any]]) -> None:
        """Wait until one task is done, and log what the start waits for.

        Raises:
            Unsupported: The coordinator differs in TLS.
        """
        begun_s, timeout_s = clock.monotonic(), FIRST_S
        while not (await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED))[0]:
            if self._link.connected:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                return
            log(f"waiting for the coordinator at {self._link.address} for {clock.monotonic() - begun_s:.0f} s")
            if difference := difference_in_tls(self._link.address):
                raise Unsupported(difference)
            timeout_s = WAITING_EVERY_S

    def _add_services(self, server: grpc.aio.Server) -> None:
        self._listeners = open_listeners(ListenRequest(self._settings, self.handler, lambda worker: None, server))
