"""Weights that count exactly how often each sample was applied, and the file of a model of such weights.

A job over S samples and K shards trains `float32[K * S]`, so that every shard owns one weight for each sample. The
gradient of a batch is 1 for each of its samples on every shard (`bench.world.computation`). With plain gradient
descent, a learning rate that is a power of two, and integer initial weights, every update is exact: `(w0 - w) / rate`
counts the applications.

Every worker process would begin with weights of its own, which are larger by its `origin`. Thus the weights also tell
whose initial weights they are, and that of two workers which both sent theirs, one has set those of all shards.
"""

from __future__ import annotations

import numpy as np

RATE = 0.125
MODEL_HEADER = b"model"


def initial_weights(shards: int, samples: int) -> np.ndarray:
    """Return integer weights, `float32[shards * samples]`."""
    return (np.arange(shards * samples) % 17 - 8).astype(np.float32)


def applications(weights: np.ndarray, shards: int) -> np.ndarray:
    """Return how often each sample was applied on each shard, `float64[shards, samples]`, exact for whole updates."""
    return counted(differences(weights, initial_weights(shards, weights.size // shards)))[0].reshape(shards, -1)


def differences(weights: np.ndarray, initial: np.ndarray) -> np.ndarray:
    """Return by how many steps weights differ from initial weights of origin 0, `float64[n]`."""
    return (initial.astype(np.float64) - weights) / RATE


def counted(steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how often each sample was applied, and the origin of each of its weights, `float64[n]` each."""
    per_origin = 1 / RATE  # an origin of 1 is as much as this number of applications, more than a job has epochs
    origins = np.floor(steps / per_origin)
    return steps - per_origin * origins, -origins


def model_file(flat: np.ndarray, padding_bytes: int) -> bytes:
    """Return the content of the model that a worker uploads, which begins with its size."""
    content = flat.tobytes() + bytes(padding_bytes)
    return MODEL_HEADER + len(content).to_bytes(8, "little") + content


def is_whole(model: bytes | bytearray) -> bool:
    """Return whether an uploaded model has the size with which it begins."""
    start = len(MODEL_HEADER) + 8
    return model[: len(MODEL_HEADER)] == MODEL_HEADER and len(model) - start == int.from_bytes(
        model[len(MODEL_HEADER) : start], "little"
    )


def weights_in(model: bytes, count: int) -> np.ndarray:
    """Return the weights, `float32[count]`, of an uploaded model."""
    return np.frombuffer(model, np.float32, count, len(MODEL_HEADER) + 8)
