"""The registry of codecs, which encode vectors for the wire. A name may have a parameter: `topk:0.01`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from downpour.protos.codecs.quantized import int8_decode, int8_deduct, int8_encode, int8_size_bytes
from downpour.protos.codecs.sparse import kept, topk_decode, topk_deduct, topk_encode
from downpour.protos.errors import InvalidRequest

Buffer = bytes | bytearray | memoryview
_BLOCK = 1 << 16  # elements that are converted at a time, so that they stay in the cache


@dataclass(frozen=True)
class Codec:
    """The encoding of `float32[n]` as bytes.

    Attributes:
        lossy: Whether the decoded vector may differ from the encoded one; the worker then keeps the difference.
        size_bytes: A function from n to the number of bytes that encode n elements.
        encode: A function from a vector and a random generator to contiguous bytes, which may be a view of the vector.
        decode: A function that decodes bytes into a vector, and raises InvalidRequest if they are invalid.
        deduct: A function that subtracts the decoded bytes from a vector, without rounding of exactly encoded elements.
    """

    lossy: bool
    size_bytes: Callable[[int], int]
    encode: Callable[[np.ndarray, np.random.Generator], Buffer]
    decode: Callable[[Buffer, np.ndarray], None]
    deduct: Callable[[Buffer, np.ndarray], None]


class CodecFamily(NamedTuple):
    """A row of the registry of codecs.

    Attributes:
        doc: A phrase that describes the codec.
        make: A function that builds the codec for a parameter, or for "" with the default, and raises ValueError if it
            is invalid.
    """

    doc: str
    make: Callable[[str], Codec]


def codec_named(name: str) -> Codec:
    """Return the codec of a name, `FAMILY` or `FAMILY:PARAMETER`.

    Raises:
        InvalidRequest: There is no such codec, or its parameter is invalid.
    """
    family, colon, parameter = name.partition(":")
    try:
        if family not in CODECS or (colon and not parameter):
            raise ValueError(f"must be one of {', '.join(CODECS)}")
        return _made(family, parameter)
    except ValueError as error:
        raise InvalidRequest(f"codec {error}; received {name!r}.") from None


def check_length(payload: Buffer, expected_bytes: int, n: int) -> None:
    """Raise InvalidRequest unless a payload has the length that n elements take."""
    if len(payload) != expected_bytes:
        raise InvalidRequest(
            f"{n:,} elements must take {expected_bytes:,} bytes in this codec; received {len(payload):,}. "
            "Check that the worker's model is the job's."
        )


@lru_cache(maxsize=256)  # the names come from callers
def _made(family: str, parameter: str) -> Codec:
    return CODECS[family].make(parameter)


# ------------------------------------------------------------------------------------------------ float32, bfloat16


def _float32_encode(vector: np.ndarray, rng: np.random.Generator | None = None) -> memoryview:
    return np.ascontiguousarray(vector, np.float32).data.cast("B")


def _float32_decode(payload: Buffer, out: np.ndarray) -> None:
    out[:] = np.frombuffer(payload, np.float32)


def _float32_deduct(payload: Buffer, vector: np.ndarray) -> None:
    vector -= np.frombuffer(payload, np.float32)


def _bfloat16_encode(vector: np.ndarray, rng: np.random.Generator) -> memoryview:
    """The upper half of each float32, rounded to the nearest, ties to even; the largest values do not overflow."""
    out = np.empty(len(vector), np.uint16)
    for start in range(0, len(vector), _BLOCK):
        block = slice(start, start + _BLOCK)
        bits = np.ascontiguousarray(vector[block], np.float32).view(np.uint32)
        rounded = (bits >> 16) & 1
        rounded += 0x7FFF
        rounded += bits
        rounded >>= 16
        halves = out[block]
        halves[:] = rounded
        magnitude = halves & 0x7FFF
        if magnitude.max() == 0x7F80:  # rounding has carried into infinity: the largest finite value is nearer
            halves[magnitude == 0x7F80] -= 1
    return out.data.cast("B")


def _bfloat16_decode(payload: Buffer, out: np.ndarray) -> None:
    bits = out.view(np.uint32)
    bits[:] = np.frombuffer(payload, np.uint16)
    bits <<= 16


def _bfloat16_deduct(payload: Buffer, vector: np.ndarray) -> None:
    halves, scratch = np.frombuffer(payload, np.uint16), np.empty(_BLOCK, np.float32)
    for start in range(0, len(vector), _BLOCK):
        part = vector[start : start + _BLOCK]
        _bfloat16_decode(halves[start : start + _BLOCK].data, scratch[: len(part)])
        part -= scratch[: len(part)]


# ------------------------------------------------------------------------------------------------ the registry


def _checked(decode: Callable[[Buffer, np.ndarray], None], size_bytes: Callable[[int], int]) -> Callable[..., None]:
    def checked(payload: Buffer, out: np.ndarray) -> None:
        check_length(payload, size_bytes(len(out)), len(out))
        decode(payload, out)

    return checked


def _float32(parameter: str) -> Codec:
    _no_parameter(parameter)
    return Codec(False, lambda n: 4 * n, _float32_encode, _checked(_float32_decode, lambda n: 4 * n), _float32_deduct)


def _bfloat16(parameter: str) -> Codec:
    _no_parameter(parameter)
    return Codec(True, lambda n: 2 * n, _bfloat16_encode, _checked(_bfloat16_decode, lambda n: 2 * n), _bfloat16_deduct)


def _int8(parameter: str) -> Codec:
    block = int(parameter or 1024) if parameter.isdecimal() or not parameter else 0
    if not 1 <= block <= 1 << 16:
        raise ValueError("int8:BLOCK must have from 1 to 65536 elements in a block")

    def size_bytes(n: int) -> int:
        return int8_size_bytes(n, block)

    return Codec(
        lossy=True,
        size_bytes=size_bytes,
        encode=lambda vector, rng: int8_encode(vector, block, rng),
        decode=_checked(lambda payload, out: int8_decode(payload, block, out), size_bytes),
        deduct=lambda payload, vector: int8_deduct(payload, block, vector),
    )


def _topk(parameter: str) -> Codec:
    try:
        fraction = float(parameter or 0.01)
    except ValueError:
        fraction = 0.0
    if not 0 < fraction <= 1:
        raise ValueError("topk:FRACTION must have a fraction above 0 and at most 1")

    def size_bytes(n: int) -> int:
        return 8 * kept(n, fraction)

    return Codec(
        lossy=True,
        size_bytes=size_bytes,
        encode=lambda vector, rng: topk_encode(vector, kept(len(vector), fraction)),
        decode=_checked(topk_decode, size_bytes),
        deduct=topk_deduct,
    )


def _no_parameter(parameter: str) -> None:
    if parameter:
        raise ValueError("must have no parameter")


CODECS: dict[str, CodecFamily] = {
    "float32": CodecFamily("4 bytes an element, exact", _float32),
    "bfloat16": CodecFamily("2 bytes an element: 8 bits of precision", _bfloat16),
    "int8": CodecFamily("1 byte an element: stochastic rounding to 127 levels of the largest in each block", _int8),
    "topk": CodecFamily("8 bytes for each of the largest elements: topk:FRACTION of them", _topk),
}
