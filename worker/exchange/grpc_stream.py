"""The gRPC transport: one bidirectional stream of raw frames to one shard.

The worker drives it with its own event loop. gRPC's blocking interface passes every message from thread to thread;
without it, a round trip of 318 kB takes a quarter less time.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

import grpc

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.channel import SESSION_KEY, call_metadata, keep_freed_memory, open_aio_channel
from downpour.protos.errors import DeadlineExceeded, DownpourError, Unreachable
from downpour.protos.frame import Buffer, Decoder, Frame, encode
from downpour.protos.status_codes import error_of
from downpour.protos.system import threads
from downpour.worker.exchange.pages import pages
from downpour.worker.exchange.transport import Transport

METHOD = "/downpour.v1.Shard/Exchange"
Result = TypeVar("Result")
Started = asyncio.Task[Result] | Future[Result]


class Loop:
    """The event loop of a worker's streams, which runs while a result is awaited, or in its own thread."""

    def __init__(self, background: bool = False) -> None:
        """Build a loop that is not running yet.

        Args:
            background: Run the loop in a thread, so that started coroutines proceed while the caller computes.
        """
        self._background = background
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threads.Thread | None = None

    def start(self, work: Coroutine[Any, Any, Result]) -> Started[Result]:
        """Start a coroutine on the loop, which is created at the first call; pass what is returned to `finish`."""
        if self._loop is None:
            self._loop = threads.event_loop()
            if self._background:
                self._thread = threads.start(self._loop.run_forever, "streams")
        if self._thread is not None:
            return asyncio.run_coroutine_threadsafe(work, self._loop)
        return self._loop.create_task(work)

    def finish(self, started: Started[Result]) -> Result:
        """Wait for the result of a started coroutine, while all others proceed."""
        if isinstance(started, Future):
            return threads.result(started)
        assert self._loop is not None
        return self._loop.run_until_complete(started)

    def close(self) -> None:
        """Stop and close the loop."""
        if self._loop is None:
            return
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        if left := threads.tasks(self._loop):  # gRPC's own tasks, which end a stream
            self._loop.run_until_complete(asyncio.wait(left, timeout=1.0))
        self._loop.close()
        self._loop = None


class GrpcTransport(Transport):
    """A bidirectional stream to one shard."""

    any_thread = False  # gRPC's event loop must be used by a single one

    def __init__(
        self,
        address: str,
        session: int,
        reply_limit_bytes: int,
        timeout_s: float,
        loop: Loop | None = None,
        buffers: int = 1,
    ) -> None:
        """Build a stream, which the first request opens.

        Args:
            address: The address of the shard, `HOST:PORT`.
            session: The number of the worker's session.
            reply_limit_bytes: The largest payload of a reply.
            timeout_s: The time within which a reply or a keep-alive message must arrive, in seconds.
            loop: The event loop that the streams to all shards share (default: a new one).
            buffers: The number of replies whose payloads the caller may read at the same time.
        """
        super().__init__(address, timeout_s)
        keep_freed_memory()
        self._session, self._limit_bytes = session, reply_limit_bytes
        self._loop, self._owns_loop = loop or Loop(), loop is None
        self._assembled = [pages(0)] * buffers
        self._request: tuple[pb.Request, tuple[Buffer, ...]] = (pb.Request(), ())
        self._reply: Started[Frame[pb.Reply]] | None = None
        self._channel: grpc.aio.Channel | None = None
        self._call: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = math.inf  # time at which the awaited message is overdue, by the loop's clock
        self._timed_out = False

    def send(self, header: pb.Request, *parts: Buffer) -> None:
        """Start an exchange on the event loop."""
        self._begin()
        self._request = (header, parts)
        self._repeat()

    def close(self) -> None:
        """Close the stream, and the event loop unless other streams share it."""
        self._disconnect()
        if self._owns_loop:
            self._loop.close()

    def _disconnect(self) -> None:
        if self._channel is not None:
            self._loop.finish(self._loop.start(self._close_channel()))

    def _reconnect(self) -> None:
        self._disconnect()

    def _repeat(self) -> None:
        self._reply = self._loop.start(self._exchange())
        self._reply.add_done_callback(_retrieve_error)  # another shard's error may be raised first

    def _await_reply(self) -> Frame[pb.Reply]:
        assert self._reply is not None
        return self._loop.finish(self._reply)

    # ------------------------------------------------------------------ on the loop

    async def _exchange(self) -> Frame[pb.Reply]:
        header, parts = self._request
        decoder = Decoder(pb.Reply, lambda header: self._limit_bytes, self._allocate)
        try:
            call = self._stream()
            for message in encode(header, *parts):
                self._set_deadline()
                await call.write(message)
            while True:
                self._set_deadline()
                message = await call.read()
                if message is grpc.aio.EOF:  # type: ignore[attr-defined]
                    raise Unreachable(f"the shard at {self.address} closed the stream without a reply")
                frame = decoder.feed(message)
                if frame is not None and not frame.header.waiting:
                    return frame
        except grpc.RpcError as failure:
            raise error_of(failure, self.address) from failure
        except (asyncio.CancelledError, asyncio.InvalidStateError, grpc.aio.UsageError) as failure:
            raise await self._explain() from failure
        finally:
            self._due_s = math.inf

    def _stream(self) -> Any:
        if self._channel is None:
            self._channel = open_aio_channel(self.address)
            exchange: Any = self._channel.stream_stream(METHOD, None, None)
            self._call = exchange(metadata=((SESSION_KEY, str(self._session)), *call_metadata(self.address)))
        return self._call

    async def _close_channel(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            self._call.cancel()
            await channel.close(None)

    def _set_deadline(self) -> None:
        loop = asyncio.get_running_loop()
        self._due_s = loop.time() + self._timeout_s
        if self._timer is None:  # resetting one timer costs less than creating one for each message
            self._timer = loop.call_at(self._due_s, self._check_deadline)

    def _check_deadline(self) -> None:
        loop, self._timer = asyncio.get_running_loop(), None
        if loop.time() >= self._due_s:
            self._timed_out = True
            self._call.cancel()
        elif self._due_s < math.inf:
            self._timer = loop.call_at(self._due_s, self._check_deadline)

    async def _explain(self) -> DownpourError:
        """Return the reason why the stream has ended."""
        if self._timed_out:
            self._timed_out = False
            return DeadlineExceeded(
                f"the shard at {self.address} must reply within {self._timeout_s:g} s; it did not. "
                "Look at its log, or allow more time with --call-timeout-s."
            )
        code, details = await self._call.code(), await self._call.details()
        empty = grpc.aio.Metadata()
        return error_of(grpc.aio.AioRpcError(code, empty, empty, details, None), self.address)

    def _allocate(self, size: int) -> memoryview:
        memory = self._assembled.pop(0)
        if len(memory) < size:
            memory = pages(size)
        self._assembled.append(memory)
        return memory[:size]


def _retrieve_error(reply: Started[Any]) -> None:
    """Prevent asyncio from printing the error of a reply that is no longer awaited."""
    if not reply.cancelled():
        reply.exception()
