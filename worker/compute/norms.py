"""Norms of the tensors of a gradient, and clipping by the norm of all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

LARGEST = float(np.finfo(np.float32).max)


def norm_of(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return the Euclidean norm of all elements of the tensors; infinite if its square exceeds float32."""
    halves = tf.add_n([tf.nn.l2_loss(tensor) for tensor in tensors])
    return tf.sqrt(halves + halves)


def exact_norm_of(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return the Euclidean norm of all elements of the tensors, which is finite exactly if every element is.

    A norm that exceeds float32 is returned as the largest number of that type.
    """

    def of_large() -> tf.Tensor:
        exact = norm_of([tf.cast(tensor, tf.float64) for tensor in tensors])
        return tf.cast(tf.where(tf.math.is_finite(exact), tf.minimum(exact, LARGEST), exact), tf.float32)

    norm = norm_of(tensors)
    return tf.cond(tf.math.is_finite(norm), lambda: norm, of_large)


def clip_together(tensors: Sequence[tf.Tensor], largest: float, norm: tf.Tensor | None = None) -> list[tf.Tensor]:
    """Return the tensors multiplied so that the norm of all their elements is at most `largest`.

    Args:
        tensors: The tensors.
        largest: The largest norm, above 0.
        norm: The norm of all elements, if it is known; see `exact_norm_of`.
    """
    scale = tf.minimum(1.0, largest / tf.maximum(exact_norm_of(tensors) if norm is None else norm, 1e-12))
    return [tensor * scale for tensor in tensors]
