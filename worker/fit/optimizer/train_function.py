"""The train function of a compiled model, which is traced once for all calls of `fit`, as in plain Keras."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from downpour.worker.fit.data.batch_loop import BatchLoop
from downpour.worker.fit.data.data_parts import number_of_rows
from downpour.worker.fit.optimizer.assignments import recorded_assignments
from downpour.worker.fit.optimizer.build_weights import TraceCache
from downpour.worker.fit.optimizer.gradient_op import GradientOp


class TrainFunction:
    """The train function of a compiled model, whose train step pushes to the servers.

    Between two calls of `fit` it is the attribute `train_function` of the model, so that everything that makes Keras
    trace anew, such as `compile`, also replaces this one.

    Attributes:
        known: What traces of the train step have found before training.
        has_own_step: Whether the train step is not that of Keras.
    """

    def __init__(self, model: keras.Model, leased: bool) -> None:
        """Build a train function that is not traced yet.

        Args:
            model: A compiled model.
            leased: Whether the batches carry the spans of their leases.
        """
        self.known: TraceCache = {}
        self._model, self._leased = model, leased
        self._conditions = _conditions(model, leased)
        self._own_step = model.train_step
        self.has_own_step = type(model).train_step is not keras.Model.train_step or "train_step" in vars(model)
        self._function: Any = None  # of Keras, between two calls of `fit`
        self._op: GradientOp | None = None

    def serves(self, leased: bool) -> bool:
        """Return whether `fit` may use it again, because nothing that it depends on has been assigned since."""
        return self._conditions == _conditions(self._model, leased)

    def enter(self) -> None:
        """Begin a call of `fit`, in which Keras uses the function of an earlier one."""
        self._model.train_function = self._function or self._loop()

    @property
    def loop(self) -> BatchLoop | None:
        """The function that trains on several batches in a call of this call of `fit`; None if it is Keras's own."""
        function = self._model.train_function
        return function if isinstance(function, BatchLoop) else None

    def _loop(self) -> BatchLoop | None:
        # Python code that a train step calls in every batch may stop training.
        goes_on = (lambda: not self._model.stop_training) if self.has_own_step else None
        return BatchLoop(self._model, goes_on) if BatchLoop.serves(self._model) else None

    def begin(self, op: GradientOp) -> GradientOp:
        """Return the exchange of a call of `fit`: that of the traced function if it serves, or the given one."""
        if self._op is not None:
            if self._op.continues(op):
                return self._op
            self._model.train_function = self._loop()
            self._model.make_train_function()
        self._op = op
        return op

    def leave(self) -> None:
        """End a call of `fit`."""
        self._function = self._model.train_function if self._op is not None else None
        self._model.train_function = self if self._function is not None else None

    def train_step(self, data: Any) -> Any:
        """Train on a batch, as the model's own train step does, and push what it changes."""
        assert self._op is not None
        op = self._op
        span, data = data if self._leased else (None, data)
        # Without this dependency, a counter would also count the step that finds the data at their end.
        after = [each for each in tf.nest.flatten((span, data), expand_composites=True) if tf.is_tensor(each)][:1]
        with tf.control_dependencies(after), _own_draws(op.rank), recorded_assignments() as assigned:
            op.begin_batch(number_of_rows(data), span, assigned)
            logs = self._own_step(data)
            op.end_batch(pushes=not (self.has_own_step or op.accumulates))
        return logs

    def __call__(self, iterator: Any) -> Any:
        """Train outside of `fit`, as `train_on_batch` does, with a function of Keras's own."""
        self._model.train_function = None
        self._model.make_train_function()
        return self._model.train_function(iterator)


def train_function_of(model: keras.Model, leased: bool) -> TrainFunction:
    """Return the train function of an earlier call of `fit`, or a new one where Keras would trace anew.

    Args:
        model: A compiled model.
        leased: Whether the batches carry the spans of their leases.
    """
    kept = model.train_function
    return kept if isinstance(kept, TrainFunction) and kept.serves(leased) else TrainFunction(model, leased)


def _conditions(model: keras.Model, leased: bool) -> tuple[Any, ...]:
    steps = (model.steps_per_execution, model.unrolled_steps_per_execution)
    return leased, bool(model.run_eagerly), steps, model.train_step


@contextmanager
def _own_draws(rank: int) -> Iterator[None]:
    """Within this context, operations of TensorFlow that draw random numbers are traced with a seed of this worker."""
    graph: Any = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    if graph is None or graph.seed is None:
        yield
        return
    seed = graph.seed
    tf.compat.v1.set_random_seed((seed + rank) % (1 << 31))  # of the graph that is traced
    try:
        yield
    finally:
        tf.compat.v1.set_random_seed(seed)
