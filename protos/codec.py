"""How a vector becomes bytes on the wire: one row per codec."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from protos.errors import InvalidRequest

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Codec:
    """A pair of functions between `float32[n]` and bytes.

    Attributes:
        doc: One line for a person.
        encode: Vector to contiguous bytes; may be a view of the vector.
        decode: Bytes and n back to a vector; may be a read-only view of the bytes.
        size_bytes: The length of the bytes for n elements.
    """

    doc: str
    encode: Callable[[np.ndarray], Buffer]
    decode: Callable[[Buffer, int], np.ndarray]
    size_bytes: Callable[[int], int]


def _float32_encode(vector: np.ndarray) -> memoryview:
    return np.ascontiguousarray(vector, np.float32).data.cast("B")


def _float32_decode(payload: Buffer, n: int) -> np.ndarray:
    check_length(payload, 4 * n, n, "float32")
    return np.frombuffer(payload, np.float32)


def check_length(payload: Buffer, expected_bytes: int, n: int, codec: str) -> None:
    """Raises InvalidRequest unless the payload has the length that n elements take in `codec`."""
    if len(payload) != expected_bytes:
        raise InvalidRequest(
            f"{n:,} elements as {codec} must take {expected_bytes:,} bytes; received {len(payload):,}. "
            "Check that the worker's model is the job's."
        )


CODECS: dict[str, Codec] = {
    "float32": Codec("4 bytes an element, exact", _float32_encode, _float32_decode, lambda n: 4 * n),
}


def codec_named(name: str) -> Codec:
    """The codec of that name.

    Raises:
        InvalidRequest: There is none.
    """
    try:
        return CODECS[name]
    except KeyError:
        raise InvalidRequest(f"codec must be one of {', '.join(CODECS)}; received {name!r}.") from None
