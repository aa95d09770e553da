"""Data-plane frames: a small protobuf header and a raw payload, cut into messages of bounded size.

The first message of a frame is `[u32 header length][header][zeros to a multiple of 16][payload]`; the header's
`payload_bytes` is the size of the whole payload. A payload above `INLINE_BYTES` follows in separate messages, so that a
receiver can check the announced length before it stores any payload.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from google.protobuf.message import DecodeError

from downpour.protos.errors import InvalidRequest, TooLarge
from downpour.protos.parameter_server_pb2 import Reply, Request

INLINE_BYTES = 1 << 20
CHUNK_BYTES = 2 << 20
HEADER_LIMIT_BYTES = 64 << 10
MESSAGE_LIMIT_BYTES = (4 << 20) + HEADER_LIMIT_BYTES
_PREFIX = struct.Struct("<I")
_ALIGNMENT = 16  # of the payload within a message: NumPy needs 4, SIMD likes 16

Header = TypeVar("Header", Request, Reply)
Buffer = bytes | bytearray | memoryview


class Frame(NamedTuple, Generic[Header]):
    """A complete frame: its header and its payload (`uint8[payload_bytes]`, read-only or owned).

    Attributes:
        parts: The messages that hold the payload, where they are not joined; `payload` is empty then.
    """

    header: Header
    payload: memoryview
    parts: Sequence[bytes] = ()


def encode(header: Header, *parts: Buffer, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """Yield the messages of one frame; each byte of the payload is copied once, into its message.

    Args:
        header: The header of the frame; its `payload_bytes` is set here.
        parts: The payload as views of bytes, in order.
        chunk_bytes: The most payload in one message.
    """
    header.payload_bytes = total = sum(map(len, parts))
    packed = header.SerializeToString()
    first: tuple[bytes, ...] = (_PREFIX.pack(len(packed)), packed, bytes(-(_PREFIX.size + len(packed)) % _ALIGNMENT))
    if total <= min(INLINE_BYTES, chunk_bytes):
        yield b"".join((*first, *parts))
        return
    yield b"".join(first)
    views: list[memoryview] = []  # of the message to come
    room = chunk_bytes
    for part in parts:
        rest = memoryview(part)
        while rest:
            views.append(rest[:room])
            rest, room = rest[room:], room - len(views[-1])
            if not room:
                yield _joined(views)
                views, room = [], chunk_bytes
    if views:
        yield _joined(views)


def _joined(views: Sequence[memoryview]) -> bytes:
    return bytes(views[0]) if len(views) == 1 else b"".join(views)


class Decoder(Generic[Header]):
    """Decodes the messages of one stream into frames.

    A frame of one message is not copied: its payload is a view of the message.
    """

    def __init__(
        self,
        header_type: type[Header],
        limit_bytes: Callable[[Header], int],
        allocate: Callable[[int], memoryview] = lambda size: np.empty(size, np.uint8).data,
        apart: Callable[[Header], bool] = lambda header: False,
    ) -> None:
        """Create a decoder that expects the first message of a frame.

        Args:
            header_type: `Request` on a server, `Reply` on a worker.
            limit_bytes: The most payload that a frame with such a header may have; called before any of
                it is stored.
            allocate: A function that returns the memory for a payload of several messages, called at its first bytes.
            apart: Whether the messages of such a frame are kept apart. Messages that do not hold whole `float32`
                elements are joined in any case.
        """
        self._header_type: type[Header] = header_type
        self._limit_bytes: Callable[[Header], int] = limit_bytes
        self._allocate = allocate
        self._apart: Callable[[Header], bool] = apart
        self._parts: list[bytes] = []
        self._header: Header | None = None
        self._payload: memoryview | None = None
        self._filled = 0

    @property
    def announced(self) -> Header | None:
        """The header of a frame whose payload has not arrived completely; None between two frames."""
        return self._header

    def feed(self, message: bytes) -> Frame[Header] | None:
        """Decode the next message and return the frame that it completes, or None.

        Raises:
            InvalidRequest: The message is truncated, its header does not parse, or it brings more payload
                than its header announced.
            TooLarge: The header announces more payload than the limit.
        """
        return self._first(message) if self._header is None else self._next(self._header, message)

    def _first(self, message: bytes) -> Frame[Header] | None:
        header, offset = self._parse(message)
        limit = self._limit_bytes(header)
        if header.payload_bytes > limit:
            raise TooLarge(
                f"a payload must be at most {limit:,} bytes here; received a header that announces "
                f"{header.payload_bytes:,}. Check that both sides have the same model and shards."
            )
        rest = memoryview(message)[offset:]
        if len(rest) == header.payload_bytes:
            return Frame(header, rest)
        self._check_room(len(rest), header.payload_bytes)
        self._header, self._filled = header, 0
        return self._take(header, rest) if rest else None

    def _next(self, header: Header, message: bytes) -> Frame[Header] | None:
        if not message:
            raise InvalidRequest("a continuation must hold payload; received an empty message. Resend the frame.")
        self._check_room(self._filled + len(message), header.payload_bytes)
        if self._payload is None and len(message) % 4 == 0 and self._apart(header):
            return self._keep(header, message)
        return self._take(header, message)

    def _keep(self, header: Header, message: bytes) -> Frame[Header] | None:
        self._parts.append(message)
        self._filled += len(message)
        if self._filled < header.payload_bytes:
            return None
        parts, self._header, self._parts = self._parts, None, []
        return Frame(header, memoryview(b""), parts)

    def _take(self, header: Header, part: bytes | memoryview) -> Frame[Header] | None:
        if self._payload is None:
            self._payload = self._allocate(header.payload_bytes)
            kept, self._parts = b"".join(self._parts), []
            self._payload[: len(kept)] = kept
        end = self._filled + len(part)
        self._payload[self._filled : end] = part
        self._filled = end
        if end < header.payload_bytes:
            return None
        payload, self._header, self._payload = self._payload, None, None
        return Frame(header, payload)

    def _parse(self, message: bytes) -> tuple[Header, int]:
        if len(message) < _PREFIX.size:
            raise InvalidRequest(
                f"a frame must start with its header's length in {_PREFIX.size} bytes; received {len(message)} "
                "bytes in all. Resend the frame."
            )
        (length,) = _PREFIX.unpack_from(message)
        offset = _PREFIX.size + length
        offset += -offset % _ALIGNMENT
        if length > HEADER_LIMIT_BYTES or offset > len(message):
            raise InvalidRequest(
                f"a frame's header must lie within its first message and be at most {HEADER_LIMIT_BYTES:,} bytes; "
                f"received a length of {length:,} in a message of {len(message):,}. Resend the frame."
            )
        header = self._header_type()
        try:
            header.ParseFromString(message[_PREFIX.size : _PREFIX.size + length])
        except DecodeError as error:
            raise InvalidRequest(
                f"a frame's header must be of the type {self._header_type.__name__}; received {length} bytes that are "
                f"not ({error}). Check that both sides run the same version."
            ) from error
        return header, offset

    @staticmethod
    def _check_room(received: int, announced: int) -> None:
        if received > announced:
            raise InvalidRequest(
                f"a frame must hold as much payload as its header announces, {announced:,} bytes; received "
                f"{received:,}. Resend the frame."
            )
