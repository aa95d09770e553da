"""Frames: a round trip at every chunk size; what is no frame is refused before memory is taken for it."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest, TooLarge
from downpour.protos.frame import (
    CHUNK_BYTES,
    HEADER_LIMIT_BYTES,
    INLINE_BYTES,
    MESSAGE_LIMIT_BYTES,
    Decoder,
    Frame,
    encode,
)

LIMIT = 4_000
U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
HEADERS = st.builds(pb.Request, worker=U32, seq=U64, codec=st.text(max_size=40), norm=st.floats())
PARTS = st.lists(st.binary(max_size=300), max_size=3)


class Allocations(list[int]):
    """Counts what a decoder takes."""

    def __call__(self, size: int) -> memoryview:
        self.append(size)
        return np.empty(size, np.uint8).data


def decoder(limit: int = LIMIT) -> tuple[Decoder[pb.Request], Allocations]:
    allocations = Allocations()
    return Decoder(pb.Request, lambda header: limit, allocations), allocations


def first_message(payload_bytes: int, rest: bytes = b"") -> bytes:
    packed = pb.Request(seq=1, payload_bytes=payload_bytes).SerializeToString()
    return len(packed).to_bytes(4, "little") + packed + bytes(-(4 + len(packed)) % 16) + rest


@given(st.lists(st.tuples(HEADERS, PARTS), min_size=1, max_size=4), st.integers(1, 700))
def test_frames_of_a_stream_come_back_as_they_were(
    frames: list[tuple[pb.Request, list[bytes]]], chunk_bytes: int
) -> None:
    receiving, _ = decoder()
    for header, parts in frames:
        messages = list(encode(header, *parts, chunk_bytes=chunk_bytes))
        assert messages == list(encode(header, b"".join(parts), chunk_bytes=chunk_bytes))
        received = [receiving.feed(message) for message in messages]
        assert received[:-1] == [None] * (len(messages) - 1)
        assert receiving.announced is None
        last = received[-1]
        assert isinstance(last, Frame) and last.payload == b"".join(parts)
        assert last.header.SerializeToString() == header.SerializeToString()


@pytest.mark.parametrize("size", [INLINE_BYTES - 1, INLINE_BYTES, INLINE_BYTES + 1, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
def test_no_message_is_beyond_grpcs_limit_and_large_payloads_are_taken_once(size: int) -> None:
    payload = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    receiving, allocations = decoder(1 << 30)
    messages = list(encode(pb.Request(), payload.data))
    assert max(map(len, messages)) <= MESSAGE_LIMIT_BYTES
    frame = [receiving.feed(message) for message in messages][-1]
    assert frame is not None and bytes(frame.payload) == payload.tobytes()
    assert allocations == ([size] if len(messages) > 1 else [])


def test_a_payload_lies_where_simd_likes_it() -> None:
    for length in range(40):
        (message,) = encode(pb.Request(codec="x" * length), b"payload")
        assert message.index(b"payload") % 16 == 0


@pytest.mark.parametrize("announced", [LIMIT + 1, 2**31, 2**63, 2**64 - 1])
def test_too_much_is_refused_before_any_of_it_is_stored(announced: int) -> None:
    receiving, allocations = decoder()
    with pytest.raises(TooLarge, match=f"{LIMIT:,} bytes here.*{announced:,}"):
        receiving.feed(first_message(announced))
    assert allocations == [] and receiving.announced is None


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([b""], "received 0 bytes"),
        ([b"\0\0\0"], "received 3 bytes"),
        ([b"\x05\0\0\0ab"], "received a length of 5 in a message of 6"),
        ([(HEADER_LIMIT_BYTES + 1).to_bytes(4, "little") + bytes(2 * HEADER_LIMIT_BYTES)], "at most 65,536"),
        ([first_message(3, b"abcd")], "announces, 3 bytes; received 4"),
        ([first_message(8), b"123", b"456789"], "announces, 8 bytes; received 9"),
        ([first_message(8), b"123", b""], "empty message"),
        ([b"\x04\0\0\0\xff\xff\xff\xff" + bytes(8)], "must be of the type Request; received 4 bytes that are not"),
    ],
)
def test_bytes_that_are_not_a_frame_are_refused(messages: list[bytes], says: str) -> None:
    receiving, _ = decoder()
    assert [receiving.feed(message) for message in messages[:-1]] == [None] * (len(messages) - 1)
    with pytest.raises(InvalidRequest, match=says):
        receiving.feed(messages[-1])


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=6))
def test_garbage_makes_a_frame_or_a_known_error_and_takes_no_more_than_the_limit(messages: list[bytes]) -> None:
    receiving, allocations = decoder()
    with suppress(InvalidRequest, TooLarge):
        for message in messages:
            receiving.feed(message)
    assert all(size <= LIMIT for size in allocations)


@given(st.binary(min_size=1, max_size=400), st.data())
def test_a_frame_cut_short_anywhere_is_never_taken_for_whole(payload: bytes, data: st.DataObject) -> None:
    messages = list(encode(pb.Request(seq=1), memoryview(payload), chunk_bytes=100))
    index = data.draw(st.integers(0, len(messages) - 1))
    kept = data.draw(st.integers(0, len(messages[index]) - 1))
    receiving, _ = decoder()
    try:
        frames = [receiving.feed(message) for message in [*messages[:index], messages[index][:kept]]]
    except InvalidRequest:
        return
    assert frames[-1] is None and receiving.announced is not None
