"""The tensors of a train step that a push consists of."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


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
