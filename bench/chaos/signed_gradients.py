"""Gradients that identify their samples: the final weights show how often each sample of each epoch was applied.

A job of E epochs over S samples on up to K slices trains `float32[K * S]`. The gradient of positions `[start, stop)`
of epoch e is `8^e` at those positions of every slice, and 0 elsewhere. With plain gradient descent, η = 2^-3 and
integer initial weights every step is exact in float32, so `(w0 - w) / η` is a number in base 8 for each slice and
sample, whose digit e counts how often that sample of epoch e was applied to that slice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RATE = 2.0**-3
BATCH = 8
CALLS, EPOCHS = 2, 3  # of a script: its calls of fit, and the epochs of each
TRAIN_EPOCHS = 4  # of a built-in training
MAX_EPOCHS = 7  # 8^8 = 2^24: beyond that float32 is not exact


def initial_weights(slices: int, samples: int) -> NDArray[np.float32]:
    """Return integer weights `float32[slices * samples]`."""
    return (np.arange(slices * samples) % 17 - 8).astype(np.float32)


def write_gradient(gradient: NDArray[np.float32], slices: int, epoch: int, start: int, stop: int) -> None:
    """Write the gradient of the positions `[start, stop)` of an epoch into `gradient`, `float32[slices * samples]`."""
    gradient[:] = 0.0
    gradient.reshape(slices, -1)[:, start:stop] = 8.0**epoch


def applied_counts(weights: NDArray[np.float32], slices: int, epochs: int) -> NDArray[np.int64]:
    """Return how often each sample was applied, `int64[slices, epochs, samples]`.

    Raises:
        ValueError: No sequence of whole updates gives these weights, or a sample was applied eight times.
    """
    steps = (initial_weights(slices, weights.size // slices) - weights) / np.float32(RATE)
    whole = np.rint(steps).astype(np.int64)
    if not np.array_equal(whole, steps) or whole.min() < 0 or whole.max() >= 8**epochs:
        raise ValueError("weights must be w0 − η·Σ 8^e over whole batches, and are not: an update was applied in part")
    digits = [whole.reshape(slices, -1) // 8**epoch % 8 for epoch in range(epochs)]
    return np.stack(digits, axis=1)
