"""Frames on a byte stream are received whatever the pieces in which they arrive, and bad ones are refused at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest
from downpour.protos.tcp.stream_frame import FIRST_LIMIT_BYTES, MAGIC, ConnectionEnded, HeaderReceiver, encoded


def arriving(content: bytes, sizes: Iterator[int]) -> Callable[[memoryview], int]:
    """Return a function that receives the next piece of a stream, and 0 bytes after its end."""
    rest = memoryview(content)

    def receive_into(buffer: memoryview) -> int:
        nonlocal rest
        count = min(len(buffer), len(rest), next(sizes))
        buffer[:count], rest = rest[:count], rest[count:]
        return count

    return receive_into


def received(receiver: HeaderReceiver[pb.Request], receive_into: Callable[[memoryview], int]) -> tuple[int, bytes]:
    while (header := receiver.receive(receive_into)) is None:
        assert receiver.begun
    payload = memoryview(bytearray(header.payload_bytes))
    filled = receiver.take_rest(payload)
    while filled < len(payload):
        filled += receive_into(payload[filled:])
    return header.seq, bytes(payload)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.lists(st.integers(1, 40), min_size=1), st.text())
def test_frames_are_received_in_any_pieces(payloads: list[bytes], sizes: list[int], codec: str) -> None:
    receiver: HeaderReceiver[pb.Request] = HeaderReceiver(pb.Request, MAGIC)
    pieces = (size for _ in range(10_000) for size in sizes)
    for seq, payload in enumerate(payloads):
        header = pb.Request(seq=seq, payload_bytes=len(payload), codec=codec)
        frame = (b"" if seq else MAGIC) + encoded(header) + payload
        assert received(receiver, arriving(frame, pieces)) == (seq, payload)
        assert not receiver.begun


def test_a_header_longer_than_what_is_received_at_once_is_received() -> None:
    receiver: HeaderReceiver[pb.Request] = HeaderReceiver(pb.Request)
    header = pb.Request(seq=1, codec="x" * 20_000)
    assert received(receiver, arriving(encoded(header), iter([1 << 20] * 100))) == (1, b"")


@pytest.mark.parametrize("byte", range(len(MAGIC)))
def test_another_protocol_is_refused_at_its_first_wrong_byte(byte: int) -> None:
    receiver: HeaderReceiver[pb.AttachRequest] = HeaderReceiver(pb.AttachRequest, MAGIC)
    receive_into = arriving(MAGIC[:byte] + b"?", iter([1] * 100))
    for _ in range(byte):
        assert receiver.receive(receive_into) is None
    with pytest.raises(InvalidRequest, match="a connection must begin with"):
        receiver.receive(receive_into)


def test_a_header_above_the_limit_is_refused_before_it_has_arrived() -> None:
    receiver: HeaderReceiver[pb.AttachRequest] = HeaderReceiver(pb.AttachRequest, b"", FIRST_LIMIT_BYTES)
    length = (FIRST_LIMIT_BYTES + 1).to_bytes(4, "little")
    with pytest.raises(InvalidRequest, match="at most 1,024 bytes; received a length of 1,025"):
        receiver.receive(arriving(length, iter([4])))


def test_the_end_of_a_stream_is_an_error_of_the_system() -> None:
    receiver: HeaderReceiver[pb.Reply] = HeaderReceiver(pb.Reply)
    receive_into = arriving(encoded(pb.Reply(seq=1))[:3], iter([3, 3]))
    assert receiver.receive(receive_into) is None
    with pytest.raises(ConnectionEnded):
        receiver.receive(receive_into)
