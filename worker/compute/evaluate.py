"""Computes loss and accuracy of flat weights on a split of the data."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from downpour.protos import parameter_server_pb2 as pb
from downpour.worker.compute.flat_model import FlatModel, correct_of

BATCH = 250  # small enough for a slow model to observe its deadline


def never() -> float:
    """Return a deadline that never passes."""
    return math.inf


class Evaluator:
    """Evaluates a model at given flat weights."""

    def __init__(self, model: keras.Model, scale: float) -> None:
        """Build an evaluator; the first call traces the model.

        Args:
            model: A model that is built; its own weights are not used.
            scale: The factor on the samples.
        """
        self._model, self._scale = FlatModel(model), scale
        self._sums = tf.function(self._sums_of, autograph=False, reduce_retracing=True)

    def __call__(
        self, flat: np.ndarray, x: np.ndarray, y: np.ndarray, deadline: Callable[[], float] = never
    ) -> pb.Evaluation:
        """Return mean loss and accuracy at `flat`, `float32[n + m]`; zeros if there are no samples.

        Args:
            flat: The weights and the state.
            x: The samples.
            y: The targets.
            deadline: A function that returns the monotonic time after which no further samples are evaluated.
        """
        loss = correct = 0.0
        weights, seen = tf.convert_to_tensor(flat), 0
        for start in range(0, len(x), BATCH):
            if time.monotonic() >= deadline():
                break
            chunk = slice(start, start + BATCH)
            sums = self._sums(weights, tf.constant(x[chunk]), tf.constant(y[chunk])).numpy()
            loss, correct = loss + float(sums[0]), correct + float(sums[1])
            seen = min(start + BATCH, len(x))
        count = max(seen, 1)
        return pb.Evaluation(samples=seen, loss=loss / count, accuracy=correct / count)

    def _sums_of(self, flat: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        outputs = self._model.outputs(flat, tf.cast(x, tf.float32) * self._scale)
        count = tf.cast(tf.shape(x)[0], tf.float32)
        return tf.stack([self._model.losses(y, outputs) * count, correct_of(y, outputs)])
