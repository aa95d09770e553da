"""Quantization to a few levels with stochastic rounding: unbiased, and deterministic for a given random source."""

from __future__ import annotations

import numpy as np

from downpour.protos.errors import InvalidRequest

Buffer = bytes | bytearray | memoryview
LEVELS = 127
_BATCH = 1 << 16  # elements (about) that are converted at a time, so that they stay in the cache


def stochastic_round(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Round x in place to ⌊x + u⌋ with u uniform in [0, 1): E[⌊x + u⌋] = x."""
    x += rng.random(x.shape, np.float32)
    np.floor(x, out=x)
    return x


def qsgd(v: np.ndarray, levels: int, rng: np.random.Generator) -> np.ndarray:
    """Alistarh et al. 2017: Q(v) = ‖v‖₂ · sign(v) · ξ(|v| / ‖v‖₂, s) for s levels.

    E[Q(v)] = v and E‖Q(v) − v‖² ≤ min(d/s², √d/s) ‖v‖². The codec int8 is this with the largest element of a block
    in place of the norm, which is never larger, and 127 levels: the same bound holds for each block.
    """
    norm = np.float32(np.linalg.norm(v))
    if norm == 0:
        return np.zeros_like(v)
    rounded = stochastic_round(np.abs(v) * (levels / norm), rng)
    rounded *= norm / levels
    np.copysign(rounded, v, out=rounded)
    return rounded


def int8_size_bytes(n: int, block: int) -> int:
    """Return the size of the encoding: a float32 scale for each block, then a byte for each element."""
    return 4 * -(-n // block) + n


def int8_encode(vector: np.ndarray, block: int, rng: np.random.Generator) -> memoryview:
    """Encode each block as its scale = max |x| / 127 and ⌊x / scale + u⌋ as int8."""
    n = len(vector)
    out = np.empty(int8_size_bytes(n, block), np.uint8)
    scales, levels = _split(out.data, n, block)
    for start, stop, first, last in _batches(n, block):
        x = vector[start:stop]
        if (stop - start) % block:
            x = np.concatenate((x, np.zeros(-(stop - start) % block, np.float32)))
        rows = x.reshape(-1, block)
        scale = np.maximum(rows.max(axis=1), -rows.min(axis=1)) * np.float32(1 / LEVELS)
        scale[scale == 0] = 1  # of a block of zeros
        rounded = stochastic_round(rows / scale[:, None], rng)
        scales[first:last] = scale
        np.clip(rounded, -LEVELS, LEVELS, out=rounded)
        levels[start:stop] = rounded.reshape(-1)[: stop - start]
    return out.data


def int8_decode(payload: Buffer, block: int, out: np.ndarray) -> None:
    """Write scale · level to `out`.

    Raises:
        InvalidRequest: A scale is negative or not finite.
    """
    scales, levels = _split(payload, len(out), block)
    if not (np.isfinite(scales) & (scales >= 0)).all():
        raise InvalidRequest("the scales of a quantized vector must be finite and not negative. Resend the frame.")
    for start, stop, first, last in _batches(len(out), block):
        np.multiply(levels[start:stop], _spread(scales[first:last], block, stop - start), out=out[start:stop])


def int8_deduct(payload: Buffer, block: int, vector: np.ndarray) -> None:
    """Subtract scale · level from `vector`."""
    scales, levels = _split(payload, len(vector), block)
    for start, stop, first, last in _batches(len(vector), block):
        vector[start:stop] -= levels[start:stop] * _spread(scales[first:last], block, stop - start)


def _split(payload: Buffer, n: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    scales = -(-n // block)
    return np.frombuffer(payload, np.float32, scales), np.frombuffer(payload, np.int8, n, 4 * scales)


def _spread(scales: np.ndarray, block: int, n: int) -> np.ndarray:
    return np.repeat(scales, block)[:n]


def _batches(n: int, block: int) -> list[tuple[int, int, int, int]]:
    """Return ranges of elements and of their blocks."""
    step = max(1, _BATCH // block)
    blocks = -(-n // block)
    return [
        (first * block, min(n, (first + step) * block), first, min(blocks, first + step))
        for first in range(0, blocks, step)
    ]
