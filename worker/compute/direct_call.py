"""Calls of a traced function without TensorFlow's Python layer: arguments and results are tensors.

TensorFlow's own call of a traced function first binds the arguments to a signature, in Python, which is a
quarter of a step of half a millisecond.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


def traced(
    function: Callable[..., list[tf.Tensor]], specs: Sequence[tf.TensorSpec], jit_compile: bool | None
) -> Callable[..., list[tf.Tensor]]:
    """Trace `function` for arguments of these types; the attribute `graph` of the result is its graph.

    Args:
        function: A function of tensors that returns a list of `float32` tensors. It must have no default arguments;
            tensors that it captures keep the values that they have now.
        specs: The types of its arguments.
        jit_compile: The argument of `tf.function`.
    """
    inner = tf.function(function, autograph=False, jit_compile=jit_compile)
    # The call below ignores jit_compile of the called function itself, but not of a function within it.
    outer = tf.function(lambda *arguments: inner(*arguments), autograph=False) if jit_compile else inner
    concrete = outer.get_concrete_function(*specs)
    captured = concrete.captured_inputs
    types = [tf.float32] * len(concrete.outputs)

    def call(*arguments: tf.Tensor) -> Any:
        given = [*arguments, *captured]
        return tf.raw_ops.StatefulPartitionedCall(args=given, Tout=types, f=concrete.name)

    call.graph = concrete.graph  # type: ignore[attr-defined]
    return call
