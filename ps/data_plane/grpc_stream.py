"""The gRPC transport: one stream per worker, raw frames in, raw frames out."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.allocator import keep_freed_memory
from downpour.protos.channel import SESSION_KEY
from downpour.protos.errors import InvalidRequest, TooLarge, UnknownWorker
from downpour.protos.frame import INLINE_BYTES, Decoder, Frame, encode
from downpour.ps.data_plane.interceptor import refuse
from downpour.ps.data_plane.request_handler import WAITING_EVERY_S, Answer, begin
from downpour.ps.data_plane.shard_runtime import ShardRuntime

SERVICE = "downpour.v1.Shard"
STREAMS_PER_SESSION = 8  # of which one is used; more are those that broke and are not seen to have ended
LOOK_EVERY_S = 1.0  # at whether a worker that should send or take a part of a payload is still a member

Context = grpc.aio.ServicerContext[bytes, bytes]


class ExchangeServicer:
    """Answers the frames of workers' streams."""

    def __init__(
        self, host: ShardRuntime, broken: Callable[[int], None] = lambda worker: None, admitted: int = 4
    ) -> None:
        """Serves one shard.

        Args:
            host: The shard.
            broken: Told of a worker whose stream ended.
            admitted: Push-pulls whose large payloads are in memory at one time; others wait unread.
        """
        keep_freed_memory(arenas=1)
        self._host, self._broken, self._admitted = host, broken, admitted
        self._admission = asyncio.Semaphore(admitted)
        self._spare: list[np.ndarray] = []
        self._streams: Counter[int] = Counter()

    def handler(self) -> grpc.GenericRpcHandler[bytes, bytes]:
        """The handler to add to a `grpc.aio` server: bytes go in and out as they are."""
        method = grpc.stream_stream_rpc_method_handler(self.exchange)
        return grpc.method_handlers_generic_handler(SERVICE, {"Exchange": method})

    async def exchange(self, _: object, context: Context) -> None:
        """Serves one stream until it ends."""
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
            worker = self._host.member_of(session).worker
            self._host.transports.add("grpc")
            keep_freed_memory(arenas=1, kept_bytes=self._admitted * 4 * self._host.size)
            while (message := await context.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
                await _Turn(self._host, session, context, self._admission, self._spare).take(message)
        except Exception as error:
            await refuse(error, context)
        finally:
            if counted is not None:
                self._streams[counted] -= 1
                self._streams += Counter()  # forgets those without any
            if worker is not None:
                self._broken(worker)


class _Turn:
    """One request of one stream, from its first message to the last of its reply."""

    def __init__(
        self,
        host: ShardRuntime,
        session: int,
        context: Context,
        admission: asyncio.Semaphore,
        spare: list[np.ndarray],
    ) -> None:
        self._host, self._session, self._context = host, session, context
        self._admission, self._spare = admission, spare
        self._admitted = False
        self._memory: np.ndarray | None = None

    async def take(self, message: bytes) -> None:
        try:
            decoder = Decoder(pb.Request, self._host.limit_bytes, self._allocate, self._host.takes_parts)
            frame = decoder.feed(message)
            header = decoder.announced or (frame and frame.header)
            assert header is not None
            while (held := self._host.held(header)) is not None:
                await self._told(held)
            # A large payload will come, or go: the weights.
            if frame is None or (not header.no_pull and 4 * self._host.size > INLINE_BYTES):
                await self._admit()
                frame = frame or await self._payload(decoder)
                await self._held(header)  # a cut may have begun meanwhile
            member = self._host.member_of(self._session)
            payload = frame.parts or frame.payload
            answer = begin(self._host, member, frame.header, payload, owned=self._memory is None)
            del frame, payload
            try:
                if answer.gate is not None:
                    await self._wait(answer.gate)
                await self._send(answer)
            finally:
                answer.abandon()
        finally:
            self._dismiss()

    async def _held(self, header: pb.Request) -> None:
        """Waits while a cut is taken that the push does not belong to; others may take its place meanwhile."""
        while (over := self._host.held(header)) is not None:
            admitted, self._admitted = self._admitted, False
            if admitted:
                self._admission.release()
            await asyncio.wait([over])
            if admitted:
                await self._admit()

    async def _payload(self, decoder: Decoder[pb.Request]) -> Frame[pb.Request]:
        with self._while_member():
            while (message := await self._context.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
                frame = decoder.feed(message)
                if frame is not None:
                    return frame
        raise InvalidRequest("a stream must end between two frames; it ended within one. Resend the frame.")

    async def _wait(self, gate: asyncio.Future[Any]) -> None:
        """Waits until the reply may leave; others may take this one's place meanwhile."""
        if gate.done():
            return
        admitted = self._admitted
        self._dismiss()
        await self._told(gate)
        if admitted:
            await self._admit()

    async def _told(self, event: asyncio.Future[Any]) -> None:
        """Waits for something to happen; the worker hears meanwhile that this shard lives."""
        while not event.done():
            await asyncio.wait([event], timeout=WAITING_EVERY_S)
            if not event.done():
                await self._context.write(next(encode(pb.Reply(waiting=True))))

    async def _send(self, answer: Answer) -> None:
        reply, buffer = answer.finish()
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
            assert self._host.shard is not None
            self._host.shard.release(buffer)

    @contextmanager
    def _while_member(self) -> Iterator[None]:
        """Breaks off what is awaited within once the worker is no member: it may never send, or take, the rest.

        Raises:
            UnknownWorker: It is none any more.
        """
        loop, turn = asyncio.get_running_loop(), asyncio.current_task()
        assert turn is not None
        lost: UnknownWorker | None = None
        timer: asyncio.TimerHandle

        def look() -> None:
            nonlocal lost, timer
            try:
                self._host.member_of(self._session)
            except UnknownWorker as error:
                lost = error
                turn.cancel()
            else:
                timer = loop.call_later(LOOK_EVERY_S, look)

        timer = loop.call_later(LOOK_EVERY_S, look)
        try:
            yield
        except asyncio.CancelledError:
            if lost is None or turn.uncancel():
                raise
            raise lost from None
        finally:
            timer.cancel()

    async def _admit(self) -> None:
        await self._admission.acquire()
        self._admitted = True

    def _dismiss(self) -> None:
        if self._memory is not None:
            self._spare.append(self._memory)
            self._memory = None
        if self._admitted:
            self._admitted = False
            self._admission.release()

    def _allocate(self, size: int) -> memoryview:
        """Memory for a large payload, used again by the next one: fresh pages cost as much as the copy into them."""
        memory = self._spare.pop() if self._spare else np.empty(0, np.uint8)
        self._memory = memory if len(memory) >= size else np.empty(size, np.uint8)
        return self._memory.data[:size]


def session_of(context: Context) -> int:
    """The session that a stream names in its metadata.

    Raises:
        UnknownWorker: It names none.
    """
    for key, value in context.invocation_metadata() or ():
        if key == SESSION_KEY and isinstance(value, str) and value.isdecimal():
            return int(value)
    raise UnknownWorker(f"a stream must name its session as metadata {SESSION_KEY!r}: register first.")
