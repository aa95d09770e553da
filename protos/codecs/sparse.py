"""The k largest elements of a vector: `uint32[k]` ascending indices, then `float32[k]` values."""

from __future__ import annotations

import math

import numpy as np

from downpour.protos.errors import InvalidRequest

Buffer = bytes | bytearray | memoryview


def kept(n: int, fraction: float) -> int:
    """Return how many of n elements are sent: the fraction, rounded up."""
    return min(n, max(1, math.ceil(n * fraction)))


def topk_encode(vector: np.ndarray, k: int) -> memoryview:
    """Encode the k elements of largest magnitude, the first of equals.

    ‖C(x) − x‖² ≤ (1 − k/n) ‖x‖² (Stich et al. 2018).
    """
    magnitude = np.abs(vector)
    magnitude.partition(len(vector) - k)
    threshold = magnitude[len(vector) - k]
    np.abs(vector, out=magnitude)
    largest = np.flatnonzero(magnitude > threshold)
    equal = np.flatnonzero(magnitude == threshold)[: k - len(largest)]
    out = np.empty(2 * k, np.uint32)
    out[:k] = np.sort(np.concatenate((largest, equal)))
    out[k:].view(np.float32)[:] = vector[out[:k]]
    return out.data.cast("B")


def topk_decode(payload: Buffer, out: np.ndarray) -> None:
    """Write the elements that were sent to `out`, and zeros elsewhere.

    Raises:
        InvalidRequest: The indices do not ascend, or one is out of range.
    """
    indices, values = _split(payload)
    if int(indices[-1]) >= len(out) or not (indices[1:] > indices[:-1]).all():
        raise InvalidRequest(
            f"the indices of a sparse vector must ascend and lie below {len(out):,}; received others, up to "
            f"{int(indices.max()):,}. Check that the worker's model is the job's."
        )
    out[:] = 0
    out[indices] = values


def topk_deduct(payload: Buffer, vector: np.ndarray) -> None:
    """Subtract the elements that were sent, which leaves exactly zero of each."""
    indices, values = _split(payload)
    vector[indices] -= values


def _split(payload: Buffer) -> tuple[np.ndarray, np.ndarray]:
    k = len(payload) // 8
    return np.frombuffer(payload, np.uint32, k), np.frombuffer(payload, np.float32, k, 4 * k)
