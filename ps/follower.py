"""A shard's end of its line to the coordinator of another process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc

from protos import parameter_server_pb2 as pb
from protos import parameter_server_pb2_grpc as rpc
from protos.channel import open_aio_channel
from protos.errors import DeadlineExceeded, error_of
from ps.host import ShardHost

REPORT_EVERY_S = 0.5


class Follower:
    """Takes the coordinator's commands to the host and the host's events to the coordinator."""

    def __init__(self, address: str) -> None:
        """Will talk to the coordinator at `HOST:PORT`."""
        self._address = address
        self._events: asyncio.Queue[pb.ShardEvent] = asyncio.Queue()

    def emit(self, event: pb.ShardEvent) -> None:
        """Sends an event, in order."""
        self._events.put_nowait(event)

    async def follow(self, host: ShardHost, joined: pb.ShardAddress, connect_timeout_s: float) -> None:
        """Serves until the coordinator says stop.

        Raises:
            DownpourError: The coordinator refuses this shard, cannot be reached, or is lost.
        """
        self._events.put_nowait(pb.ShardEvent(joined=joined))
        async with open_aio_channel(self._address) as channel:
            try:
                await asyncio.wait_for(channel.channel_ready(), connect_timeout_s)
            except TimeoutError:
                raise DeadlineExceeded(
                    f"the coordinator must answer at {self._address} within {connect_timeout_s:g} s; it did not. "
                    "Start shard 0 first and check the address."
                ) from None
            reporter = asyncio.create_task(self._report(host))
            try:
                async for command in rpc.CoordinatorStub(channel).Follow(self._outgoing()):
                    host.command(command)
                    if host.stopped.is_set():
                        self._report_once(host, stopped=True)
                        await asyncio.sleep(0)
            except grpc.RpcError as failure:
                if not host.stopped.is_set():
                    raise error_of(failure, self._address) from failure
            finally:
                reporter.cancel()

    async def _outgoing(self) -> AsyncIterator[pb.ShardEvent]:
        while True:
            event = await self._events.get()
            yield event
            if event.stopped:
                return

    async def _report(self, host: ShardHost) -> None:
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            self._report_once(host)

    def _report_once(self, host: ShardHost, stopped: bool = False) -> None:
        self.emit(pb.ShardEvent(count=host.count(), trace=host.take_trace(), stopped=stopped))
