"""A shard in a process of its own, and its end of the line to the coordinator."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import grpc

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos import parameter_server_pb2_grpc as rpc
from downpour.protos.channel import call_metadata, open_aio_channel
from downpour.protos.errors import DeadlineExceeded, Unreachable, error_of
from downpour.protos.logs import identify
from downpour.ps.config import ServerSettings
from downpour.ps.data_plane.grpc_stream import ExchangeServicer
from downpour.ps.data_plane.shard_runtime import ShardRuntime
from downpour.ps.data_plane.snapshot import ShardState, pieces
from downpour.ps.endpoints import announce, listen, on_signals, open_doorbell, open_exporter
from downpour.ps.monitoring.prometheus import ShardMetrics

REPORT_EVERY_S = 0.5
RETRY_S = 0.2
DRAINED_S = 8.0  # for the coordinator, asked to end as this shard was, to drain the job and to say stop
Event = pb.ShardEvent | tuple[int, ShardState]  # a state goes out in pieces


class CoordinatorLink:
    """Takes the coordinator's commands to the host and the host's events to the coordinator.

    Attributes:
        connected: Whether the line is up.
    """

    def __init__(self, address: str) -> None:
        """Will talk to the coordinator at `HOST:PORT`."""
        self._address = address
        self.connected = False
        self._events: asyncio.Queue[Event] = asyncio.Queue()

    def emit(self, event: pb.ShardEvent) -> None:
        """Sends an event, in order."""
        self._events.put_nowait(event)

    async def follow(
        self, host: ShardRuntime, joined: pb.ShardAddress, connect_timeout_s: float, reconnect_s: float
    ) -> None:
        """Serves until the coordinator says stop; one that is lost is waited for.

        Raises:
            DownpourError: The coordinator refuses this shard, or does not answer in time.
        """
        host.took = lambda number, state: self._took(host, number, state)
        host.began = lambda state: self._took(host, 0, state)
        deadline, met = time.monotonic() + connect_timeout_s, False
        while not host.stopped.is_set():
            try:
                await self._one_line(host, joined, deadline)
                deadline, met = time.monotonic() + reconnect_s, True
            except Unreachable as error:
                if self.connected:
                    deadline, met = time.monotonic() + reconnect_s, True
                if time.monotonic() + RETRY_S > deadline:
                    verb, within_s = ("be back", reconnect_s) if met else ("answer", connect_timeout_s)
                    raise DeadlineExceeded(
                        f"the coordinator must {verb} at {self._address} within {within_s:g} s; it did not: {error} "
                        "Start shard 0 first and check the address."
                    ) from error
            finally:
                self.connected = False
            await asyncio.sleep(RETRY_S)

    async def _one_line(self, host: ShardRuntime, joined: pb.ShardAddress, deadline: float) -> None:
        async with open_aio_channel(self._address) as channel:
            timeout_s = max(RETRY_S, deadline - time.monotonic())
            try:
                await asyncio.wait_for(channel.channel_ready(), timeout_s)
            except TimeoutError:
                raise Unreachable("nobody listens there.") from None
            self._forget_events()
            # A queue of its own: the line before may still be waiting at its.
            self._events = asyncio.Queue()
            self._events.put_nowait(pb.ShardEvent(joined=joined))
            reporter = asyncio.create_task(self._report(host))
            try:
                events = self._outgoing(host, self._events)
                async for command in rpc.CoordinatorStub(channel).ShardLink(events, metadata=call_metadata()):
                    self.connected = True
                    host.command(command)
                    if host.stopped.is_set():
                        self._report_once(host, stopped=True)
                        await asyncio.sleep(0)
            except grpc.RpcError as failure:
                if not host.stopped.is_set():
                    raise error_of(failure, self._address) from failure
            finally:
                reporter.cancel()
                self._forget_events()

    async def _outgoing(self, host: ShardRuntime, events: asyncio.Queue[Event]) -> AsyncIterator[pb.ShardEvent]:
        while True:
            event = await events.get()
            if isinstance(event, tuple):
                number, state = event
                try:
                    for part in pieces(state, number):
                        yield pb.ShardEvent(part=part, generation=host.generation)
                finally:
                    state.release()
                continue
            yield event
            if event.stopped:
                return

    def _took(self, host: ShardRuntime, number: int, state: ShardState) -> None:
        """Sends the state that was taken for a cut, after the records that belong to it."""
        self._report_once(host)
        self._events.put_nowait((number, state))

    def _forget_events(self) -> None:
        """Nobody will hear of them."""
        while not self._events.empty():
            event = self._events.get_nowait()
            if isinstance(event, tuple):
                event[1].release()

    async def _report(self, host: ShardRuntime) -> None:
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            self._report_once(host)

    def _report_once(self, host: ShardRuntime, stopped: bool = False) -> None:
        records, calls, generation = host.records.take(), host.calls.take(), host.generation
        self.emit(
            pb.ShardEvent(counters=host.count(), trace=records, call_log=calls, stopped=stopped, generation=generation)
        )


class ShardProcess:
    """Another shard, led by the coordinator of shard 0's process."""

    def __init__(self, settings: ServerSettings) -> None:
        """Makes everything that lives in this process."""
        assert settings.coordinator is not None
        self._settings = settings
        self._follower = CoordinatorLink(settings.coordinator)
        self.host = ShardRuntime(settings.shard, self._follower.emit)

    async def serve(self) -> int:
        """Runs until the coordinator says stop; returns the exit code."""
        doorbell = open_doorbell(self._settings, self.host)
        try:
            server, address = await listen(self._settings, self._add_services)
        except BaseException:
            if doorbell:
                doorbell.close()
            raise
        identify(process=f"ps-{self._settings.shard}")
        exporter = open_exporter(self._settings, ShardMetrics(self.host))
        facts = {"metrics": f"{self._settings.metrics_host}:{exporter.port}"} if exporter else {}
        announce(address=address, shard=self._settings.shard, coordinator=self._settings.coordinator, **facts)
        name = doorbell.name if doorbell else ""
        joined = pb.ShardAddress(shard=self._settings.shard, address=address, generation=1, doorbell=name)
        following = asyncio.create_task(
            self._follower.follow(self.host, joined, self._settings.start_timeout_s, self._settings.reconnect_s)
        )
        asked = asyncio.Event()
        on_signals(lambda name: asked.set())
        try:
            stop = asyncio.create_task(asked.wait())
            await asyncio.wait([following, stop], return_when=asyncio.FIRST_COMPLETED)
            deadline = time.monotonic() + DRAINED_S
            while self._follower.connected and time.monotonic() < deadline and not following.done():
                await asyncio.wait([following], timeout=RETRY_S)
            if not following.done():
                following.cancel()
                return 1
            following.result()
        finally:
            if exporter:
                exporter.close()
            await server.stop(grace=0.5)
            if doorbell:
                doorbell.close()
        return 0

    def _add_services(self, server: grpc.aio.Server) -> None:
        server.add_generic_rpc_handlers((ExchangeServicer(self.host, admitted=self._settings.admitted).handler(),))
