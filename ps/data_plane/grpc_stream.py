"""The gRPC transport: one stream of raw frames per worker, in both directions."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.channel import SESSION_KEY, keep_freed_memory
from downpour.protos.errors import InvalidRequest, TooLarge, UnknownWorker
from downpour.protos.frame import INLINE_BYTES, Decoder, Frame, encode
from downpour.ps.data_plane.interceptor import refuse
from downpour.ps.data_plane.request_handler import WAITING_EVERY_S, PendingReply, RequestHandler

SESSION_DIGITS = 20  # of the largest number of a session, 2^64 - 1
SERVICE = "downpour.v1.Shard"
STREAMS_PER_SESSION = 8  # one is in use; the others are broken streams whose end has not been detected yet
CHECK_MEMBER_EVERY_S = 1.0  # while a worker sends or receives a payload

Context = grpc.aio.ServicerContext[bytes, bytes]


class ExchangeServicer:
    """Serves the streams of workers: each request frame gets a reply frame."""

    def __init__(
        self,
        handler: RequestHandler,
        connection_lost: Callable[[int], None] = lambda worker: None,
        admitted: int = 4,
        connected: Callable[[], None] = lambda: None,
    ) -> None:
        """Create a servicer of one shard.

        Args:
            handler: The handler of the requests.
            connection_lost: A callback that receives the number of a worker whose stream has ended.
            admitted: The number of push-pulls whose large payloads may be in memory at one time; others wait unread.
            connected: A callback for each stream of a worker.
        """
        keep_freed_memory(arenas=1)
        self._handler, self._connection_lost, self._admitted = handler, connection_lost, admitted
        self._connected = connected
        self._admission = asyncio.Semaphore(admitted)
        self._spare: list[np.ndarray] = []
        self._streams: Counter[int] = Counter()

    def rpc_handler(self) -> grpc.GenericRpcHandler[bytes, bytes]:
        """Return the handler to add to a `grpc.aio` server; messages are raw bytes in both directions."""
        method = grpc.stream_stream_rpc_method_handler(self.exchange)
        return grpc.method_handlers_generic_handler(SERVICE, {"Exchange": method})

    async def exchange(self, _: object, context: Context) -> None:
        """Serve one stream until it ends."""
        worker: int | None = None
        counted: int | None = None
        try:
            session = session_of(context)
            if self._streams[session] >= STREAMS_PER_SESSION:
                raise TooLarge(
                    f"a session must have at most {STREAMS_PER_SESSION} streams open to a shard; this is one more."
                )
            self._streams[session] += 1
            counted = session
            runtime = self._handler.runtime
            worker = runtime.member_of(session).worker
            self._connected()
            keep_freed_memory(arenas=1, kept_bytes=self._admitted * 4 * runtime.size)
            while (message := await context.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
                await _Exchange(self._handler, session, context, self._admission, self._spare).serve(message)
        except Exception as error:
            await refuse(error, context)
        finally:
            if counted is not None:
                self._streams[counted] -= 1
                self._streams += Counter()  # forgets those without any
            if worker is not None:
                self._connection_lost(worker)


class _Exchange:
    """One request of one stream, from its first message to the last of its reply."""

    def __init__(
        self,
        handler: RequestHandler,
        session: int,
        context: Context,
        admission: asyncio.Semaphore,
        spare: list[np.ndarray],
    ) -> None:
        self._handler, self._runtime, self._session, self._context = handler, handler.runtime, session, context
        self._admission, self._spare = admission, spare
        self._admitted = False
        self._memory: np.ndarray | None = None

    async def serve(self, message: bytes) -> None:
        try:
            decoder = Decoder(pb.Request, self._runtime.limit_bytes, self._allocate, self._runtime.takes_parts)
            frame = decoder.feed(message)
            header = decoder.announced or (frame and frame.header)
            assert header is not None
            while (held := self._runtime.held(header)) is not None:
                await self._wait_for(held)
            # A large payload, the weights, will be received or sent.
            if frame is None or (not header.no_pull and 4 * self._runtime.size > INLINE_BYTES):
                await self._admit()
                frame = frame or await self._payload(decoder)
                await self._wait_while_held(header)  # a cut may have begun in the meantime
            member = self._runtime.member_of(self._session)
            payload = frame.parts or frame.payload
            reply = self._handler.handle(member, frame.header, payload, owned=self._memory is None)
            del frame, payload
            try:
                if reply.ready is not None:
                    await self._wait_until_ready(reply.ready)
                await self._send(reply)
            finally:
                reply.abandon()
        finally:
            self._leave()

    async def _wait_while_held(self, header: pb.Request) -> None:
        """Wait until the end of a cut that excludes the push; other requests may be admitted during the wait."""
        while (released := self._runtime.held(header)) is not None:
            admitted, self._admitted = self._admitted, False
            if admitted:
                self._admission.release()
            await asyncio.wait([released])
            if admitted:
                await self._admit()

    async def _payload(self, decoder: Decoder[pb.Request]) -> Frame[pb.Request]:
        with self._while_member():
            while (message := await self._context.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
                frame = decoder.feed(message)
                if frame is not None:
                    return frame
        raise InvalidRequest("a stream must end between two frames; it ended within one. Resend the frame.")

    async def _wait_until_ready(self, ready: asyncio.Future[Any]) -> None:
        """Wait until the reply may be sent; other requests may be admitted during the wait."""
        if ready.done():
            return
        admitted = self._admitted
        self._leave()
        await self._wait_for(ready)
        if admitted:
            await self._admit()

    async def _wait_for(self, event: asyncio.Future[Any]) -> None:
        """Wait for an event, and send keep-alive messages to the worker at intervals."""
        while not event.done():
            await asyncio.wait([event], timeout=WAITING_EVERY_S)
            if not event.done():
                await self._context.write(next(encode(pb.Reply(waiting=True))))

    async def _send(self, pending: PendingReply) -> None:
        reply, buffer = pending.finish()
        if buffer is None:
            await self._context.write(next(encode(reply)))
            return
        try:
            if buffer.array.nbytes <= INLINE_BYTES:
                await self._context.write(next(encode(reply, buffer.array.data.cast("B"))))
                return
            with self._while_member():
                for message in encode(reply, buffer.array.data.cast("B")):
                    await self._context.write(message)
        finally:
            self._runtime.trained_shard().release(buffer)

    @contextmanager
    def _while_member(self) -> Iterator[None]:
        """Cancel what the block awaits once the worker is no longer a member: it may never send or receive the rest.

        Raises:
            UnknownWorker: The worker is no longer a member.
        """
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        lost: UnknownWorker | None = None
        timer: asyncio.TimerHandle

        def check() -> None:
            nonlocal lost, timer
            try:
                self._runtime.member_of(self._session)
            except UnknownWorker as error:
                lost = error
                task.cancel()
            else:
                timer = loop.call_later(CHECK_MEMBER_EVERY_S, check)

        timer = loop.call_later(CHECK_MEMBER_EVERY_S, check)
        try:
            yield
        except asyncio.CancelledError:
            if lost is None or task.uncancel():
                raise
            raise lost from None
        finally:
            timer.cancel()

    async def _admit(self) -> None:
        await self._admission.acquire()
        self._admitted = True

    def _leave(self) -> None:
        if self._memory is not None:
            self._spare.append(self._memory)
            self._memory = None
        if self._admitted:
            self._admitted = False
            self._admission.release()

    def _allocate(self, size: int) -> memoryview:
        """Return memory for a large payload; it is reused, as fresh pages cost as much as the copy into them."""
        memory = self._spare.pop() if self._spare else np.empty(0, np.uint8)
        self._memory = memory if len(memory) >= size else np.empty(size, np.uint8)
        return self._memory.data[:size]


def session_of(context: Context) -> int:
    """Return the session in a stream's metadata.

    Raises:
        UnknownWorker: The metadata contain no session.
    """
    for key, value in context.invocation_metadata() or ():
        if key == SESSION_KEY and isinstance(value, str) and value.isdecimal() and len(value) <= SESSION_DIGITS:
            return int(value)
    raise UnknownWorker(f"a stream must name its session as metadata {SESSION_KEY!r}: register first.")
