"""The server side of simulated gRPC: executes the handlers of real servicers."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

import grpc

from downpour.bench.world.system.network import VirtualCall, VirtualNetwork
from downpour.bench.world.system.process import VirtualProcess

EOF_FIRST_SHARE = 0.5  # fraction of broken streams whose end is seen before the cancellation, as can happen in gRPC


class Details(grpc.HandlerCallDetails):
    """The method and the metadata of a call."""

    def __init__(self, method: str, invocation_metadata: Any) -> None:
        """Describe a call by its method and its metadata."""
        self.method, self.invocation_metadata = method, invocation_metadata


class ServerEnd:
    """The server's end of a call: the context of its handler."""

    def __init__(self, call: VirtualCall, server: VirtualServer) -> None:
        """Create the context of a call that has just arrived."""
        self._call, self._server = call, server
        self._inbox: deque[bytes] = deque()
        self._eof = self._done = False
        self._changed: asyncio.Future[None] | None = None
        self.status: tuple[grpc.StatusCode, str] | None = None

    # ------------------------------------------------------------------ what arrives

    def message(self, data: bytes) -> None:
        """Receive one serialised message of the client."""
        self._inbox.append(data)
        self._call.connection.network.arrived(self._call)
        self._notify()

    def half_close(self) -> None:
        """Receive the end of the client's messages."""
        self._eof = True
        self._notify()

    def gone(self) -> None:
        """Receive the end of the call: the client has cancelled it, or the connection broke."""
        self._done = True

    def _notify(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    # ------------------------------------------------------------------ the interface of grpc.aio.ServicerContext

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata of the call."""
        return self._call.metadata

    def peer(self) -> str:
        """Return the address of the client, as gRPC writes it."""
        return f"ipv4:{self._call.connection.client.machine.address}:{40_000 + self._call.connection.client.number}"

    def done(self) -> bool:
        """Return whether the call has ended."""
        return self._done

    cancelled = done

    async def read(self) -> Any:
        """Return the next message, or EOF."""
        while not self._inbox:
            if self._eof:
                return grpc.aio.EOF  # type: ignore[attr-defined]
            self._changed = asyncio.get_running_loop().create_future()
            await self._changed
        return self._inbox.popleft()

    async def write(self, data: bytes) -> None:
        """Send one message to the client."""
        self._server.process.check_alive()
        if self._done:
            raise asyncio.CancelledError
        self._call.to_client(self._call.reply, bytes(data))
        await asyncio.sleep(0)

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> None:
        """End the call with a status."""
        if self.status is None:
            self.status = (code, details)
        raise grpc.aio.AbortError("Locally aborted.")

    def finish(self) -> None:
        """Send the status of the call, after the handler has ended."""
        if not self._server.process.alive:
            return  # the connection breaks, which the client learns
        if not self._done:
            self._done = True
            code, details = self.status or (grpc.StatusCode.OK, "")
            self._call.to_client(self._call.end, code, details)
        else:
            self._call.connection.calls.pop(self._call, None)

    async def requests(self, deserialize: Any) -> AsyncIterator[Any]:
        """Yield the messages of the client."""
        while (message := await self.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
            yield deserialize(message) if deserialize else message


class VirtualServer:
    """A gRPC server of a simulated process."""

    def __init__(self, network: VirtualNetwork, process: VirtualProcess, interceptors: Sequence[Any]) -> None:
        """Create a server that does not listen yet."""
        self._network, self.process, self._interceptors = network, process, interceptors
        self._generic: list[Any] = []
        self._handlers: dict[str, Any] = {}
        self._addresses: list[str] = []
        self._tasks: dict[VirtualCall, asyncio.Task[None]] = {}
        self._loop = asyncio.get_running_loop()

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[Any]) -> None:
        """Add handlers; the first one that knows a method serves it."""
        self._generic.extend(generic_rpc_handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Any) -> None:
        """Do nothing: `add_generic_rpc_handlers` receives the same handlers."""

    def add_insecure_port(self, address: str) -> int:
        """Add an address to listen on; return its port."""
        if address in self._network.listeners:
            raise RuntimeError(f"{address} is in use")
        self._addresses.append(address)
        return int(address.rpartition(":")[2])

    async def start(self) -> None:
        """Accept calls at the server's addresses."""
        for address in self._addresses:
            self._network.listeners[address] = self
        self.process.on_end.append(self._close)

    async def stop(self, grace: float | None = None) -> None:
        """Refuse new calls, wait for those under way, and close all connections."""
        for address in self._addresses:
            self._network.listeners.pop(address, None)
        if self._tasks and grace:
            await asyncio.wait(list(self._tasks.values()), timeout=grace)
        self._close()

    def _close(self) -> None:
        for address in self._addresses:
            if self._network.listeners.get(address) is self:
                del self._network.listeners[address]
        for connection in list(self._network.connections):
            if connection.server is self:
                connection.reset()

    # ------------------------------------------------------------------ calls

    def accept(self, call: VirtualCall) -> None:
        """Begin to execute a call."""
        call.server_end = ServerEnd(call, self)
        self._tasks[call] = self._loop.create_task(self._serve(call, call.server_end))

    def disconnected(self, call: VirtualCall) -> None:
        """End a call whose client has gone: the handler sees the end of the stream, is cancelled, or both."""
        task, end = self._tasks.get(call), call.server_end
        if task is None or end is None:
            return
        world = self._network.world
        if world.random.random() < EOF_FIRST_SHARE:
            end.half_close()
            world.at(world.now + self._network.latency_s(), self.process, self._cancel, task, end)
        else:
            self._cancel(task, end)

    def _cancel(self, task: asyncio.Task[None], end: ServerEnd) -> None:
        end.gone()
        task.cancel()

    async def _serve(self, call: VirtualCall, end: ServerEnd) -> None:
        try:
            handler = await self._handler(call)
            await self._execute(handler, end)
        except grpc.aio.AbortError:
            pass  # `abort` has set the status already
        except asyncio.CancelledError:
            end.status = end.status or (grpc.StatusCode.CANCELLED, "the call was cancelled")
        except Exception as error:  # noqa: BLE001 - gRPC answers UNKNOWN
            end.status = (grpc.StatusCode.UNKNOWN, f"Unexpected {type(error)}: {error}")
            self._network.world.problem(f"{self.process.name}: {call.method} raised {error!r}")
        finally:
            self._tasks.pop(call, None)
            with suppress(Exception):
                end.finish()

    async def _handler(self, call: VirtualCall) -> Any:
        if call.method not in self._handlers:
            details = Details(call.method, call.metadata)

            async def found(each: Any) -> Any:
                for generic in self._generic:
                    handler = generic.service(each)
                    if handler is not None:
                        return handler
                return None

            chain: Any = found
            for interceptor in reversed(self._interceptors):
                chain = _intercepted(interceptor, chain)
            self._handlers[call.method] = await chain(details)
        return self._handlers[call.method]

    async def _execute(self, handler: Any, end: ServerEnd) -> None:
        method: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        serialize = handler.response_serializer or (lambda reply: reply)
        if handler.request_streaming:
            request: Any = end.requests(handler.request_deserializer)
        else:
            data = await end.read()
            if data is grpc.aio.EOF:  # type: ignore[attr-defined]
                raise asyncio.CancelledError
            request = handler.request_deserializer(data)
        if handler.response_streaming:
            if inspect.isasyncgenfunction(method):
                async for reply in method(request, end):
                    await end.write(serialize(reply))
            else:
                await method(request, end)
        else:
            reply = await method(request, end)
            if end.status is None and not end.done():
                await end.write(serialize(reply))


def _intercepted(interceptor: Any, chain: Any) -> Any:
    async def intercept(details: Any) -> Any:
        return await interceptor.intercept_service(chain, details)

    return intercept
