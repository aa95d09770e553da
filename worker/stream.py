"""The gRPC transport: one bidirectional stream of raw frames to one shard."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np

from protos import parameter_server_pb2 as pb
from protos.channel import SESSION_KEY, open_channel
from protos.errors import DeadlineExceeded, DownpourError, Unreachable, error_of
from protos.frame import Buffer, Decoder, Frame, encode

METHOD = "/downpour.v1.Shard/Exchange"
RETRY_FIRST_S, RETRY_MOST_S = 0.05, 1.0


class ShardStream:
    """Sends requests to a shard and receives their replies, through broken connections.

    A request is repeated, with the same seq, until its reply arrives: the shard applies it once.
    """

    def __init__(self, address: str, session: int, reply_limit_bytes: int, timeout_s: float) -> None:
        """Opens the stream.

        Args:
            address: `HOST:PORT` of the shard.
            session: Of the worker.
            reply_limit_bytes: The most payload in a reply.
            timeout_s: How long a reply, or the next sign of life, may take.
        """
        self.address = address
        self._session, self._limit_bytes, self._timeout_s = session, reply_limit_bytes, timeout_s
        self._assembled = np.empty(0, np.uint8)
        self._request: tuple[pb.Request, Buffer] | None = None
        self._awaiting_until: float | None = None
        self._timed_out = False
        self._open()

    def send(self, header: pb.Request, payload: Buffer = b"") -> None:
        """Sends a request; `payload` must not change until its reply is there."""
        self._request = (header, payload)
        self._transmit()

    def receive(self) -> Frame[pb.Reply]:
        """Waits for the reply to what was sent last.

        Raises:
            DownpourError: What the shard said; Unreachable or DeadlineExceeded if it said nothing.
        """
        give_up_s = time.monotonic() + self._timeout_s
        pause_s = RETRY_FIRST_S
        while True:
            try:
                return self._await_reply()
            except (Unreachable, DeadlineExceeded) as error:
                if isinstance(error, DeadlineExceeded) or time.monotonic() + pause_s > give_up_s:
                    raise
            threading.Event().wait(pause_s)
            pause_s = min(2 * pause_s, RETRY_MOST_S)
            self.close()
            self._open()
            self._transmit()

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

    def _transmit(self) -> None:
        assert self._request is not None
        for message in encode(*self._request):
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
        if len(self._assembled) < size:
            self._assembled = np.empty(size, np.uint8)
        return self._assembled.data[:size]


def _drain(outgoing: queue.SimpleQueue[bytes | None]) -> Iterator[bytes]:
    while (message := outgoing.get()) is not None:
        yield message
