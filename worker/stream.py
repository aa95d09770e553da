"""The gRPC transport: one bidirectional stream of raw frames to one shard."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np

from protos import parameter_server_pb2 as pb
from protos.channel import SESSION_KEY, open_channel
from protos.errors import DeadlineExceeded, DownpourError, Unreachable, error_of
from protos.frame import Buffer, Decoder, Frame, encode
from worker.transport import Transport

METHOD = "/downpour.v1.Shard/Exchange"


class ShardStream(Transport):
    """A stream to a shard."""

    def __init__(
        self, address: str, session: int, reply_limit_bytes: int, timeout_s: float, buffers: int = 1
    ) -> None:
        """Opens the stream.

        Args:
            address: `HOST:PORT` of the shard.
            session: Of the worker.
            reply_limit_bytes: The most payload in a reply.
            timeout_s: How long a reply, or the next sign of life, may take.
            buffers: Replies whose payloads the caller may still read when it receives another, and that one.
        """
        super().__init__(address, timeout_s)
        self._session, self._limit_bytes = session, reply_limit_bytes
        self._assembled = [np.empty(0, np.uint8)] * buffers
        self._request: tuple[pb.Request, tuple[Buffer, ...]] | None = None
        self._awaiting_until: float | None = None
        self._timed_out = False
        self._open()

    def watch(self, now: float) -> None:
        """Breaks the stream off if an awaited reply is overdue; to be called from another thread."""
        until = self._awaiting_until
        if until is not None and now > until:
            self._timed_out = True
            self._call.cancel()

    def close(self) -> None:
        """Ends the stream."""
        self._outgoing.put(None)
        self._call.cancel()
        self._channel.close()

    def _open(self) -> None:
        self._channel = open_channel(self.address)
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._decoder = Decoder(pb.Reply, lambda header: self._limit_bytes, self._allocate)
        exchange = self._channel.stream_stream(METHOD, None, None)
        metadata = ((SESSION_KEY, str(self._session)),)
        self._call: Any = exchange(_drain(self._outgoing), metadata=metadata)

    def _reconnect(self) -> None:
        self.close()
        self._open()

    def _put(self, header: pb.Request, parts: tuple[Buffer, ...]) -> None:
        self._request = (header, parts)
        self._repeat()

    def _repeat(self) -> None:
        assert self._request is not None
        header, parts = self._request
        for message in encode(header, *parts):
            self._outgoing.put(message)

    def _await_reply(self) -> Frame[pb.Reply]:
        try:
            while True:
                self._awaiting_until = time.monotonic() + self._timeout_s
                frame = self._decoder.feed(next(self._call))
                if frame is not None and not frame.header.waiting:
                    return frame
        except StopIteration:
            raise Unreachable(f"the shard at {self.address} ended the stream without a reply") from None
        except grpc.RpcError as failure:
            raise self._explain(failure) from failure
        finally:
            self._awaiting_until = None

    def _explain(self, failure: grpc.RpcError) -> DownpourError:
        if self._timed_out:
            self._timed_out = False
            return DeadlineExceeded(
                f"the shard at {self.address} must answer within {self._timeout_s:g} s; it did not. "
                "Look at its log, or allow more time with --call-timeout-s."
            )
        return error_of(failure, self.address)

    def _allocate(self, size: int) -> memoryview:
        memory = self._assembled.pop(0)
        if len(memory) < size:
            memory = np.empty(size, np.uint8)
        self._assembled.append(memory)
        return memory.data[:size]


def _drain(outgoing: queue.SimpleQueue[bytes | None]) -> Iterator[bytes]:
    while (message := outgoing.get()) is not None:
        yield message
