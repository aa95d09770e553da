"""Records which variables the code of a script assigns: in a train step, while it is traced, or in a callback.

A train step that applies its optimizer only in some batches adds up gradients in variables, and counts batches in
others to decide on it. These belong to the updates of one worker, and must not be those of several.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
from tensorflow.python.ops import control_flow_v2_func_graphs, resource_variable_ops

METHODS = ("assign", "assign_add", "assign_sub")
Branch = tuple[Any, ...]  # graphs of branches, the outermost first; empty outside of all


class Assignments:
    """The variables that have been assigned within a context of `recorded_assignments`.

    Attributes:
        pushes_conditionally: Whether the train step applies its optimizers only in some batches.
    """

    def __init__(self) -> None:
        """Create a record without assignments."""
        self.pushes_conditionally = False
        self._originals: dict[int, tuple[Any, tf.Tensor | None]] = {}
        self._branches: dict[int, set[Branch]] = {}  # in which each variable is assigned
        self._sums: set[int] = set()
        self._paused = False

    def __contains__(self, variable: Any) -> bool:
        """Return whether a variable of Keras has been assigned."""
        return id(_inner(variable)) in self._originals

    def add(self, variable: Any) -> None:
        """Record that a variable of TensorFlow is about to be assigned."""
        if not self._paused and id(variable) not in self._originals:
            eager = tf.executing_eagerly()
            self._originals[id(variable)] = variable, tf.identity(variable) if eager else None
        if not self._paused:
            self._branches.setdefault(id(variable), set()).add(current_branch())

    def find_sums(self, pushes: Iterable[Branch], others: Iterable[Any]) -> None:
        """Find the variables in which a train step adds up gradients until it applies its optimizers.

        Args:
            pushes: The branches in which the step applies optimizers.
            others: The variables that are none if the step does not reset them where it applies an optimizer: weights,
                and those of layers and metrics.
        """
        found, branches = {branch[:1] for branch in pushes}, self._branches
        self.pushes_conditionally, self._branches = () not in found, {}  # the graphs are needed no longer
        for key, places in branches.items():
            outermost = {branch[:1] for branch in places}
            if outermost - found and outermost & (found - {()}):  # such as a sum that is reset when it is used
                self._sums.add(key)
        if self.pushes_conditionally:
            excluded = {id(_inner(variable)) for variable in others}
            self._sums.update(
                key
                for key, (variable, _) in self._originals.items()
                if key not in excluded and tf.as_dtype(variable.dtype).is_floating
            )

    @property
    def has_sums(self) -> bool:
        """Whether the train step adds up gradients, so that the integers that it assigns decide on its updates."""
        return bool(self._sums)

    def is_sum(self, variable: Any) -> bool:
        """Return whether the train step adds up gradients in a variable, which each worker has of its own."""
        return id(_inner(variable)) in self._sums

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


def current_branch() -> Branch:
    """Return the branches of `tf.cond` whose operations are traced now, the outermost first."""
    graph: Any = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    found: list[Any] = []
    while graph is not None:
        if isinstance(graph, control_flow_v2_func_graphs.CondBranchFuncGraph):
            found.insert(0, graph)
        graph = getattr(graph, "outer_graph", None)
    return tuple(found)


def _inner(variable: Any) -> Any:
    """Return TensorFlow's variable of a variable of Keras."""
    return getattr(variable, "_value", variable)


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
