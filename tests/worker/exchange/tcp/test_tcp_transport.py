"""The worker's side of the TCP transport receives frames, whatever the pieces in which the network delivers them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.tcp.stream_frame import MAGIC, HeaderReceiver, encoded
from downpour.worker.exchange.tcp.transport import TcpTransport
from downpour.worker.exchange.transports import Route
from tests.support.cluster import DEADLINE_S


class OneReply:
    """A shard that answers one request with the given pieces of a byte stream."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(DEADLINE_S)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def route(self) -> Route:
        address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        shard = pb.ShardAddress(address=address, tcp=address)
        loop: Any = None  # which only gRPC's transport uses
        return Route(shard, 1, 1 << 20, 1 << 20, DEADLINE_S, loop, 1)

    def close(self) -> None:
        self._thread.join(DEADLINE_S)
        self._listener.close()

    def _serve(self) -> None:
        line, _ = self._listener.accept()
        with line:
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            first: HeaderReceiver[pb.AttachRequest] = HeaderReceiver(pb.AttachRequest, MAGIC)
            while first.receive(line.recv_into) is None:
                pass
            line.sendall(encoded(pb.Reply()))
            request: HeaderReceiver[pb.Request] = HeaderReceiver(pb.Request)
            while request.receive(line.recv_into) is None:
                pass
            for piece in self._pieces:
                line.sendall(piece)
            line.recv(1)  # until the worker has closed the connection


def received(pieces: Sequence[bytes]) -> tuple[pb.Reply, bytes]:
    shard = OneReply(pieces)
    try:
        transport = TcpTransport(shard.route)
        try:
            transport.send(pb.Request())
            frame = transport._await_reply()
            return frame.header, bytes(frame.payload)
        finally:
            transport.close()
    finally:
        shard.close()


@pytest.mark.parametrize("keep_alives", [1, 2, 700])
def test_a_reply_directly_behind_keep_alive_messages_is_received(keep_alives: int) -> None:
    reply = pb.Reply(version=7, payload_bytes=8)
    stream = encoded(pb.Reply(waiting=True)) * keep_alives + encoded(reply) + b"12345678"
    assert received([stream]) == (reply, b"12345678")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 3), st.sampled_from([0, 1, 5000, 70_000]), st.lists(st.integers(1, 6000), min_size=0, max_size=6))
def test_a_reply_is_received_in_any_pieces(keep_alives: int, size_bytes: int, cuts: list[int]) -> None:
    reply, payload = pb.Reply(version=3, payload_bytes=size_bytes), bytes(range(256)) * (size_bytes // 256 + 1)
    stream = encoded(pb.Reply(waiting=True)) * keep_alives + encoded(reply) + payload[:size_bytes]
    ends = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    pieces = [stream[start:stop] for start, stop in zip(ends, ends[1:], strict=False)]
    assert received(pieces) == (reply, payload[:size_bytes])
