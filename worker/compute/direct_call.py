"""A traced function that is called with nothing in between: its arguments are tensors, and so are its results.

TensorFlow's own call of a traced function binds the arguments to a signature first, in Python: at a step of half a
millisecond that is a quarter of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


def traced(
    function: Callable[..., list[tf.Tensor]], specs: Sequence[tf.TensorSpec], jit_compile: bool | None
) -> Callable[..., list[tf.Tensor]]:
    """Traces `function` for arguments of these types; the result's `graph` is what was traced.

    Args:
        function: Of tensors, to a list of tensors, `float32`; what it captures stays as it is. No default values.
        specs: Of its arguments.
        jit_compile: As `tf.function` takes it.
    """
    inner = tf.function(function, autograph=False, jit_compile=jit_compile)
    # The call below does not look at jit_compile; a function that holds nothing but the compiled one does.
    outer = tf.function(lambda *arguments: inner(*arguments), autograph=False) if jit_compile else inner
    concrete = outer.get_concrete_function(*specs)
    captured = concrete.captured_inputs
    types = [tf.float32] * len(concrete.outputs)

    def call(*arguments: tf.Tensor) -> Any:
        given = [*arguments, *captured]
        return tf.raw_ops.StatefulPartitionedCall(args=given, Tout=types, f=concrete.name)

    call.graph = concrete.graph  # type: ignore[attr-defined]
    return call
