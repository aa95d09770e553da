"""Frames on a byte stream: `[u32 header length][header][payload]`; the header's `payload_bytes` is the payload's size.

A connection begins with `MAGIC` and a frame whose header is an `AttachRequest`; all others are `Request`s to the shard
and `Reply`s from it. This module does no I/O: it is given functions that receive.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Generic, TypeVar

from google.protobuf.message import DecodeError

from downpour.protos.errors import InvalidRequest
from downpour.protos.frame import HEADER_LIMIT_BYTES
from downpour.protos.parameter_server_pb2 import AttachRequest, Reply, Request

MAGIC = b"DOWNPOUR"  # with which a worker begins a connection
FIRST_LIMIT_BYTES = 1024  # of the header of a connection's first frame
BLOCK_BYTES = 4096  # received at once for a header; a payload's first bytes may come with it and are copied
_PREFIX = struct.Struct("<I")

Header = TypeVar("Header", AttachRequest, Request, Reply)


class ConnectionEnded(OSError):
    """The other side has closed the connection."""


def encoded(header: AttachRequest | Request | Reply) -> bytes:
    """Return the beginning of a frame, which its payload follows."""
    packed = header.SerializeToString()
    return _PREFIX.pack(len(packed)) + packed


class HeaderReceiver(Generic[Header]):
    """Receives the headers of one connection; bytes of the payload that arrive with one are kept for it."""

    def __init__(self, kind: type[Header], magic: bytes = b"", limit_bytes: int = HEADER_LIMIT_BYTES) -> None:
        """Create a receiver that expects the first byte of a header.

        Args:
            kind: The type of the headers.
            magic: The bytes that must come before the first header.
            limit_bytes: The size of the longest header.
        """
        self._kind: type[Header] = kind
        self._magic, self._limit_bytes = magic, limit_bytes
        self._block = memoryview(bytearray(BLOCK_BYTES))
        self._filled = self._end = 0

    @property
    def begun(self) -> bool:
        """Whether a part of a header has arrived."""
        return self._filled > 0

    def receive(self, receive_into: Callable[[memoryview], int]) -> Header | None:
        """Receive once; return the header that this completes, or None.

        Args:
            receive_into: A function that receives into a buffer and returns the number of bytes; 0 at the end.

        Raises:
            InvalidRequest: The bytes are not the beginning of a frame.
            ConnectionEnded: The other side has closed the connection.
            OSError: `receive_into` raises it.
        """
        count = receive_into(self._block[self._filled :])
        if not count:
            raise ConnectionEnded("the other side has closed the connection")
        self._filled += count
        return self._parsed()

    def buffered(self) -> Header | None:
        """Return the header that bytes received after the previous frame complete; None if more must be received.

        Raises:
            InvalidRequest: The bytes are not the beginning of a frame.
        """
        return self._parsed() if self._filled else None

    def keep_rest(self) -> None:
        """End a frame without a payload, and keep the bytes that came after it for the next one."""
        rest = self._filled - self._end
        self._block[:rest] = self._block[self._end : self._filled]
        self._filled, self._end = rest, 0

    def take_rest(self, payload: memoryview) -> int:
        """Move the bytes that came after the header to the beginning of its payload, and return their number.

        Raises:
            InvalidRequest: They are more than the payload.
        """
        count = self._filled - self._end
        if count > len(payload):
            raise InvalidRequest(
                f"a frame must hold as much payload as its header announces, {len(payload):,} bytes, and the next must "
                f"wait for the reply; received {count:,}. Resend the frame."
            )
        payload[:count] = self._block[self._end : self._filled]
        self._filled = self._end = 0
        return count

    def _parsed(self) -> Header | None:
        magic = self._magic
        if magic and self._block[: min(self._filled, len(magic))] != magic[: self._filled]:
            raise InvalidRequest(
                f"a connection must begin with {magic!r}; received {bytes(self._block[: min(self._filled, 8)])!r}. "
                "Only workers of this version may connect to this port."
            )
        start = len(magic) + _PREFIX.size
        if self._filled < start:
            return None
        (length,) = _PREFIX.unpack_from(self._block, len(magic))
        if length > self._limit_bytes:
            raise InvalidRequest(
                f"a frame's header must be at most {self._limit_bytes:,} bytes; received a length of {length:,}. "
                "Check that both sides run the same version."
            )
        end = start + length
        if self._filled < end:
            if end > len(self._block):
                block = memoryview(bytearray(end))
                block[: self._filled] = self._block[: self._filled]
                self._block = block
            return None
        header = self._kind()
        try:
            header.ParseFromString(bytes(self._block[start:end]))
        except DecodeError as error:
            raise InvalidRequest(
                f"a frame's header must be of the type {self._kind.__name__}; received {length} bytes that are not "
                f"({error}). Check that both sides run the same version."
            ) from error
        self._magic, self._end = b"", end
        return header
