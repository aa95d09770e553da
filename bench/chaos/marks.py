"""Gradients that sign for their samples: the final weights tell how often each sample of each epoch was applied.

A job of E epochs over S samples on up to K slices trains `float32[K * S]`. The gradient of positions `[start, stop)`
of epoch e is `8^e` at those positions of every slice, and 0 elsewhere. With plain descent, η = 2^-3 and whole initial
weights every step is exact in float32, so `(w0 - w) / η` is a number in base 8 for each slice and sample, whose
digit e is how often that sample of epoch e was applied to that slice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RATE = 2.0**-3
MOST_EPOCHS = 7  # 8^8 = 2^24: beyond that float32 is not exact


def initial_weights(slices: int, samples: int) -> NDArray[np.float32]:
    """`float32[slices * samples]`, whole numbers that differ."""
    return (np.arange(slices * samples) % 17 - 8).astype(np.float32)


def mark(gradient: NDArray[np.float32], slices: int, epoch: int, start: int, stop: int) -> None:
    """Writes the gradient of some positions of an epoch into `float32[slices * samples]`."""
    gradient[:] = 0.0
    gradient.reshape(slices, -1)[:, start:stop] = 8.0**epoch


def applied_counts(weights: NDArray[np.float32], slices: int, epochs: int) -> NDArray[np.int64]:
    """How often each sample was applied, `int64[slices, epochs, samples]`.

    Raises:
        ValueError: The weights are not those of such a job: an update was torn, or a sample came eight times.
    """
    steps = (initial_weights(slices, weights.size // slices) - weights) / np.float32(RATE)
    whole = np.rint(steps).astype(np.int64)
    if not np.array_equal(whole, steps) or whole.min() < 0 or whole.max() >= 8**epochs:
        raise ValueError("weights must be w0 − η·Σ 8^e over whole batches; these are not: an update was torn")
    digits = [whole.reshape(slices, -1) // 8**epoch % 8 for epoch in range(epochs)]
    return np.stack(digits, axis=1)
