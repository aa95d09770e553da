"""Records which variables the code of a script assigns: in a train step, while it is traced, or in a callback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
from tensorflow.python.ops import resource_variable_ops

METHODS = ("assign", "assign_add", "assign_sub")


class Assignments:
    """The variables that have been assigned within a context of `recorded_assignments`."""

    def __init__(self) -> None:
        """Create a record without assignments."""
        self._originals: dict[int, tuple[Any, tf.Tensor | None]] = {}
        self._paused = False

    def __contains__(self, variable: Any) -> bool:
        """Return whether a variable of Keras has been assigned."""
        return id(getattr(variable, "_value", variable)) in self._originals

    def add(self, variable: Any) -> None:
        """Record that a variable of TensorFlow is about to be assigned."""
        if not self._paused and id(variable) not in self._originals:
            eager = tf.executing_eagerly()
            self._originals[id(variable)] = variable, tf.identity(variable) if eager else None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within this context, nothing is recorded."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def undo(self) -> None:
        """Give every variable that has been assigned eagerly the value that it had before."""
        for variable, value in self._originals.values():
            if value is not None:
                variable.assign(value)


@contextmanager
def recorded_assignments() -> Iterator[Assignments]:
    """Record the variables that are assigned within this context, in a graph that is traced or eagerly."""
    found = Assignments()
    owners = (resource_variable_ops.ResourceVariable, resource_variable_ops.BaseResourceVariable)
    originals = [(owner, name, vars(owner)[name]) for owner in owners for name in METHODS if name in vars(owner)]

    def recording(own: Any) -> Any:
        def assign(variable: Any, *args: Any, **kwargs: Any) -> Any:
            found.add(variable)
            return own(variable, *args, **kwargs)

        return tf.autograph.experimental.do_not_convert(assign)

    for owner, name, own in originals:
        setattr(owner, name, recording(own))
    try:
        yield found
    finally:
        for owner, name, own in originals:
            setattr(owner, name, own)


def is_seed(variable: Any) -> bool:
    """Return whether a variable is the state of a random generator, which each worker has of its own."""
    return str(variable.path).endswith("seed_generator_state")


def is_other(variable: Any) -> bool:
    """Return whether a variable is neither in the layout nor a worker's own: an integer, a boolean or a string."""
    return not tf.as_dtype(variable.dtype).is_floating and not is_seed(variable)
