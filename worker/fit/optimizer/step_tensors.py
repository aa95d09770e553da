"""The tensors of a train step that a push consists of."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import tensorflow as tf

from downpour.protos.chunked_vector import ChunkedVector
from downpour.worker.compute.flat_model import flattened

LARGE = 1 << 13  # from this number of elements, a gradient is pushed from its own memory and not joined to others


def dense(gradient: Any) -> tf.Tensor:
    """Return a gradient, which may be that of an embedding, as a dense tensor of type float32."""
    return tf.cast(tf.convert_to_tensor(gradient), tf.float32)


def clipped(gradients: list[tf.Tensor], optimizer: Any) -> list[tf.Tensor]:
    """Return the gradients clipped as the arguments of the optimizer say; each worker clips its own."""
    if optimizer.clipnorm:
        return [tf.clip_by_norm(gradient, optimizer.clipnorm) for gradient in gradients]
    if optimizer.global_clipnorm:
        return list(tf.clip_by_global_norm(gradients, optimizer.global_clipnorm)[0])
    if optimizer.clipvalue:
        return [tf.clip_by_value(gradient, -optimizer.clipvalue, optimizer.clipvalue) for gradient in gradients]
    return gradients


def scalar(value: Any, otherwise: float) -> tf.Tensor:
    """Return a scalar of the step that is traced or run; a tensor of another step is replaced by `otherwise`."""
    graph: Any = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    own = getattr(value, "graph", graph)
    while graph is not own and graph is not None:  # a branch of the step may use what is outside of it
        graph = getattr(graph, "outer_graph", None)
    if value is None or graph is not own:
        return tf.constant(otherwise)
    return tf.cast(tf.reduce_mean(value), tf.float32)


def in_chunks(gradients: Sequence[Any], together: bool = False) -> list[tf.Tensor]:
    """Return gradients as vectors, in order, of which small ones are joined to their neighbours.

    Args:
        gradients: The gradients.
        together: Whether all are joined to one vector.
    """
    chunks: list[tf.Tensor] = []
    for is_large, run in groupby(flattened(gradients), lambda each: not together and (each.shape[0] or 0) >= LARGE):
        own = list(run)
        chunks += own if is_large or len(own) == 1 else [tf.concat(own, 0)]
    return chunks


def followed_by(gradient: np.ndarray | ChunkedVector, differences: np.ndarray) -> np.ndarray | ChunkedVector:
    """Return a gradient with the differences of the state after it, which is not copied if it has several chunks."""
    if not len(differences):
        return gradient
    if isinstance(gradient, ChunkedVector):
        return ChunkedVector([*gradient.arrays, differences])
    return np.concatenate([gradient, differences])
