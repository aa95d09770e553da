"""The client side of simulated gRPC for event loops: a channel whose calls are coroutines, as `grpc.aio.Channel`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import grpc

from downpour.bench.world.system.client_channel import ClientChannel, Serializer, server_end, unsupported
from downpour.bench.world.system.network import REFUSED, VirtualCall, VirtualNetwork
from downpour.bench.world.system.process import VirtualProcess


class VirtualAioChannel(ClientChannel):
    """A channel whose calls are coroutines of an event loop."""

    def __init__(self, network: VirtualNetwork, process: VirtualProcess, address: str) -> None:
        """Create a channel without a connection; see `ClientChannel`."""
        super().__init__(network, process, address)
        self._calls: list[AioCall] = []

    def stream_stream(
        self, method: str, request_serializer: Serializer = None, response_deserializer: Any = None, **_: Any
    ) -> Any:
        """Return a function that begins a call with streams in both directions."""

        def call(requests: Any = None, metadata: tuple[tuple[str, str], ...] = (), **_: Any) -> AioCall:
            begun = AioCall(self, method, tuple(metadata), request_serializer, response_deserializer)
            self._calls.append(begun)
            if requests is not None:
                begun.send_all(requests)
            return begun

        return call

    def unary_unary(self, *_: Any, **__: Any) -> Any:
        """Return a function that raises: the servers make only streaming calls."""
        return unsupported

    stream_unary = unary_stream = unary_unary

    async def channel_ready(self) -> None:
        """Wait until a server listens at the address."""
        while self.connection() is None:
            await asyncio.sleep(0.1)
        await asyncio.sleep(self.network.latency_s())

    async def close(self, grace: float | None = None) -> None:
        """Cancel all calls and close the connection."""
        for call in self._calls:
            call.cancel()
        self._calls.clear()
        self.disconnect()

    async def __aenter__(self) -> VirtualAioChannel:
        """Return this channel, as `async with` expects."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the channel with all of its calls."""
        await self.close()


class AioCall:
    """A call with streams in both directions."""

    def __init__(
        self,
        channel: VirtualAioChannel,
        method: str,
        metadata: tuple[tuple[str, str], ...],
        serialize: Serializer,
        deserialize: Any,
    ) -> None:
        """Open the call, or arrange for its refusal where no server can be reached."""
        self._serialize, self._deserialize = serialize, deserialize
        self._loop, self._process = asyncio.get_running_loop(), channel.process
        self._inbox: deque[bytes] = deque()
        self._status: tuple[grpc.StatusCode, str] | None = None
        self._cancelled = False
        self._changed: asyncio.Future[None] = self._loop.create_future()
        self._sender: asyncio.Task[None] | None = None
        self._call: VirtualCall | None = None
        connection = channel.connection()
        if connection is None:
            network = channel.network
            network.world.at(
                network.world.now + network.latency_s(), channel.process, self.end,
                grpc.StatusCode.UNAVAILABLE, REFUSED,
            )  # fmt: skip
        else:
            self._call = connection.open_call(method, metadata, self)

    # ------------------------------------------------------------------ what arrives

    def message(self, data: bytes) -> None:
        """Receive one serialised message of the server."""
        self._inbox.append(data)
        self._notify()

    def end(self, code: grpc.StatusCode, details: str) -> None:
        """Receive the status of the call."""
        if self._status is None:
            self._status = (code, details)
            self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, self._loop.create_future()
        if not changed.done():
            changed.set_result(None)

    # ------------------------------------------------------------------ the interface of grpc.aio

    def send_all(self, requests: AsyncIterator[Any]) -> None:
        """Send the requests of an iterator."""
        self._sender = self._loop.create_task(self._send_each(requests))

    async def _send_each(self, requests: AsyncIterator[Any]) -> None:
        async for request in requests:
            if self._status is not None:
                return
            await self.write(request)
        if self._call is not None and self._status is None:
            self._call.to_server(server_end(self._call).half_close)

    async def write(self, message: Any) -> None:
        """Send one message to the server."""
        self._process.check_alive()
        if self._status is not None:
            await self._raise_for_status()
            raise asyncio.InvalidStateError("the call has ended")
        if self._call is None:
            while self._status is None:
                await asyncio.shield(self._changed)
            await self._raise_for_status()
            return
        data = self._process.alter(bytes(self._serialize(message) if self._serialize else message))
        self._call.connection.network.observer.request(self._call, data)
        self._call.to_server(server_end(self._call).message, data)
        await asyncio.sleep(0)

    async def read(self) -> Any:
        """Return the next message, or EOF at the end of a call without an error."""
        while not self._inbox:
            if self._status is not None:
                await self._raise_for_status()
                return grpc.aio.EOF  # type: ignore[attr-defined]
            await asyncio.shield(self._changed)
        data = self._inbox.popleft()
        return self._deserialize(data) if self._deserialize else data

    async def _raise_for_status(self) -> None:
        assert self._status is not None
        code, details = self._status
        if self._cancelled:
            raise asyncio.CancelledError
        if code is not grpc.StatusCode.OK:
            empty = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(code, empty, empty, details, None)

    def __aiter__(self) -> AsyncIterator[Any]:
        """Return an iterator of the messages."""
        return self._each()

    async def _each(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
            yield message

    def cancel(self) -> bool:
        """End the call; return whether it had not ended before."""
        if not self._process.alive:  # the coroutines of a killed process are closed, and must not act any more
            return False
        if self._sender is not None:
            self._sender.cancel()
        if self._status is not None:
            return False
        self._cancelled, self._status = True, (grpc.StatusCode.CANCELLED, "Locally cancelled by application!")
        if self._call is not None:
            self._call.connection.calls.pop(self._call, None)
            self._call.to_server(self._call.connection.server.disconnected, self._call)
        self._notify()
        return True

    async def code(self) -> grpc.StatusCode:
        """Return the gRPC status code of the call."""
        while self._status is None:
            await asyncio.shield(self._changed)
        return self._status[0]

    async def details(self) -> str:
        """Return the text of the status."""
        await self.code()
        assert self._status is not None
        return self._status[1]
