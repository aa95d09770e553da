"""The data plane: one stream per worker, raw frames in, raw frames out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc

from protos import parameter_server_pb2 as pb
from protos.channel import SESSION_KEY
from protos.errors import DownpourError, InvalidRequest, UnknownWorker, status_of
from protos.frame import Decoder, Frame, encode
from ps.buffers import Buffer
from ps.host import ShardHost
from ps.shard import Outcome, Result

WAITING_EVERY_S = 5.0  # a worker at a closed gate hears so often that the server lives
SERVICE = "downpour.v1.Shard"


class ExchangeServicer:
    """Answers the frames of workers' streams."""

    def __init__(self, host: ShardHost, broken: Callable[[int], None] = lambda worker: None) -> None:
        """Serves one shard.

        Args:
            host: The shard.
            broken: Told of a worker whose stream ended.
        """
        self._host, self._broken = host, broken

    def handler(self) -> grpc.GenericRpcHandler[bytes, bytes]:
        """The handler to add to a `grpc.aio` server: bytes go in and out as they are."""
        method = grpc.stream_stream_rpc_method_handler(self.exchange)
        return grpc.method_handlers_generic_handler(SERVICE, {"Exchange": method})

    async def exchange(self, _: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        """Serves one stream until it ends."""
        worker: int | None = None
        try:
            session = session_of(context)
            worker = self._host.member_of(session).worker
            decoder = Decoder(pb.Request, self._host.limit_bytes)
            while (message := await context.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
                frame = decoder.feed(message)
                if frame is not None:
                    self._host.member_of(session)
                    await self._answer(frame, context)
            if not decoder.between_frames:
                raise InvalidRequest(
                    "a stream must end between two frames; it ended within one. Resend the frame."
                )
        except DownpourError as error:
            await context.abort(*status_of(error))
        finally:
            if worker is not None:
                self._broken(worker)

    async def _answer(
        self, frame: Frame[pb.Request], context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> None:
        header = frame.header
        if header.kind == pb.INIT:
            self._host.initialise(frame.payload)
            await send(context, pb.Reply(generation=self._host.trained_shard().generation))
        elif header.kind == pb.PULL:
            buffer, version = self._host.trained_shard().pull(header.pin)
            await self._reply(context, header, pb.Reply(), buffer, version)
        else:
            result, duplicate = self._host.push(header, frame.payload)
            buffer, version = await self._proceed(header.worker, context)
            shard = self._host.trained_shard()
            if result.outcome == Outcome.BUFFERED:
                result = shard.remembered(header.worker, header.incarnation, header.seq) or result
            await self._reply(context, header, reply_of(header, result, duplicate), buffer, version)

    async def _proceed(
        self, worker: int, context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> tuple[Buffer, int]:
        """Waits until the worker may proceed; returns what is committed in that turn of the loop."""
        gate = self._host.gate(worker)
        try:
            while not gate.done():
                await asyncio.wait([gate], timeout=WAITING_EVERY_S)
                if not gate.done():
                    await send(context, pb.Reply(waiting=True))
        finally:
            gate.cancel()  # without effect once it is open
        return gate.result()

    async def _reply(
        self,
        context: grpc.aio.ServicerContext[bytes, bytes],
        header: pb.Request,
        reply: pb.Reply,
        buffer: Buffer,
        version: int,
    ) -> None:
        """Sends a reply with the weights that `buffer` holds, and lets them go."""
        shard = self._host.trained_shard()
        reply.seq, reply.version, reply.generation, reply.drain = (
            header.seq,
            version,
            shard.generation,
            self._host.draining,
        )
        reply.not_modified = header.HasField("have_version") and header.have_version == version
        try:
            if header.no_pull or reply.not_modified:
                await send(context, reply)
            else:
                payload = buffer.array.data.cast("B")
                self._host.metrics.bytes_pulled += len(payload)
                for message in encode(reply, payload):
                    await context.write(message)
        finally:
            shard.release(buffer)


async def send(context: grpc.aio.ServicerContext[bytes, bytes], reply: pb.Reply) -> None:
    """Sends a reply without payload."""
    for message in encode(reply):
        await context.write(message)


def reply_of(header: pb.Request, result: Result, duplicate: bool) -> pb.Reply:
    """What a worker is told of its push."""
    return pb.Reply(
        seq=header.seq,
        outcome=int(result.outcome),  # type: ignore[arg-type]
        reason=result.reason,
        staleness=result.staleness,
        learning_rate=result.learning_rate,
        applied_version=result.version,
        duplicate=duplicate,
    )


def session_of(context: grpc.aio.ServicerContext[bytes, bytes]) -> int:
    """The session that a stream names in its metadata.

    Raises:
        UnknownWorker: It names none.
    """
    for key, value in context.invocation_metadata() or ():
        if key == SESSION_KEY and isinstance(value, str) and value.isdecimal():
            return int(value)
    raise UnknownWorker(f"a stream must name its session as metadata {SESSION_KEY!r}: register first.")
