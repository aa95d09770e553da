"""The client side of simulated gRPC for threads: a channel whose calls block, as `grpc.Channel`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc

from downpour.bench.world.system.client_channel import (
    ClientChannel,
    Serializer,
    VirtualRpcError,
    server_end,
    unsupported,
)
from downpour.bench.world.system.network import REFUSED
from downpour.bench.world.system.threads import VirtualThread, current_thread


class VirtualChannel(ClientChannel):
    """A channel whose calls block the calling thread."""

    def unary_unary(self, method: str, request_serializer: Serializer, response_deserializer: Any, **_: Any) -> Any:
        """Return a function that makes a call with one request."""

        def call(request: Any, timeout: float | None = None, **_: Any) -> Any:
            return _BlockingCall(self, method, timeout).run([request], request_serializer, response_deserializer)

        return call

    def stream_unary(self, method: str, request_serializer: Serializer, response_deserializer: Any, **_: Any) -> Any:
        """Return a function that makes a call with several requests."""

        def call(requests: Iterable[Any], timeout: float | None = None, **_: Any) -> Any:
            return _BlockingCall(self, method, timeout).run(requests, request_serializer, response_deserializer)

        return call

    def unary_stream(self, *_: Any, **__: Any) -> Any:
        """Return a function that raises: no simulated client watches a job."""
        return unsupported

    stream_stream = unary_stream

    def close(self) -> None:
        """Close the connection, which ends its calls."""
        self.disconnect()


class _BlockingCall:
    def __init__(self, channel: VirtualChannel, method: str, timeout_s: float | None) -> None:
        self._channel, self._method = channel, method
        self._thread: VirtualThread = current_thread()
        self._thread.process.check_alive()
        self._until_s = None if timeout_s is None else channel.network.world.now + timeout_s
        self._reply: bytes | None = None
        self._status: tuple[grpc.StatusCode, str] | None = None

    def run(self, requests: Iterable[Any], serialize: Serializer, deserialize: Any) -> Any:
        network, thread = self._channel.network, self._thread
        connection = self._channel.connection()
        if connection is None:
            thread.block(network.world.now + network.latency_s())
            raise VirtualRpcError(grpc.StatusCode.UNAVAILABLE, REFUSED)
        call = connection.open_call(self._method, (), self)
        for request in requests:
            end = server_end(call)
            data = thread.process.alter_call(self._method, serialize(request) if serialize else request)
            call.to_server(end.message, data)
            if connection.broken:
                break
        call.to_server(server_end(call).half_close)
        while self._status is None:
            thread.block(self._until_s)
            if self._status is None and self._until_s is not None and network.world.now >= self._until_s:
                connection.calls.pop(call, None)
                call.to_server(call.connection.server.disconnected, call)
                raise VirtualRpcError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        code, details = self._status
        if code is not grpc.StatusCode.OK:
            raise VirtualRpcError(code, details)
        assert self._reply is not None
        return deserialize(self._reply)

    def message(self, data: bytes) -> None:
        self._reply = data

    def end(self, code: grpc.StatusCode, details: str) -> None:
        if self._status is None:
            self._status = (code, details)
            self._thread.wake()
