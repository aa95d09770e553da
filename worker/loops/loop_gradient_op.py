"""Pushes the gradients of a script's own training loop, and assigns the weights that the servers return."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from downpour.protos.chunked_vector import ChunkedVector
from downpour.protos.errors import Unsupported
from downpour.worker.fit.cluster.learning_rates import kept_for_next_session, send_rates
from downpour.worker.fit.cluster.leases import Leases, Span
from downpour.worker.fit.cluster.script_worker import ScriptWorker
from downpour.worker.fit.optimizer.gradient_op import NO_SPAN, GradientOp
from downpour.worker.fit.optimizer.model_optimizers import ModelOptimizers

RATES_AHEAD = 20_000  # updates for which a schedule is sent to the servers; the next barrier extends it


class TrainedWeights:
    """The variables of all models and lists of a training loop, with the interface of one model.

    Attributes:
        owners: The index of the optimizer of each trained variable, by the `id` of the variable.
    """

    def __init__(self, groups: Sequence[Any]) -> None:
        """Collect the variables of models or lists of variables, one for each optimizer.

        Raises:
            Unsupported: A model is not built, a group is neither a model nor a list of variables, or two groups have a
                variable in common.
        """
        self._models = [group for group in groups if isinstance(group, keras.layers.Layer)]
        self.owners: dict[int, int] = {}
        self._trained: list[Any] = []
        for index, group in enumerate(groups):
            for variable in _trained_of(group):
                if id(variable) not in self.owners:
                    self._trained.append(variable)
                if self.owners.setdefault(id(variable), index) != index:
                    raise Unsupported(
                        "a weight must be trained by one optimizer, because the servers keep one set of moments for "
                        f"it. Received: two optimizers for {variable.path}. Give each optimizer weights of its own."
                    )

    @property
    def trainable_variables(self) -> list[Any]:
        """The variables that the optimizers train, in the order of the groups."""
        return list(self._trained)

    @property
    def non_trainable_variables(self) -> list[Any]:
        """The variables of the models that no optimizer trains."""
        found = {id(v): v for model in self._models for v in model.variables if id(v) not in self.owners}
        return list(found.values())

    def _flatten_layers(self) -> list[Any]:
        return [layer for model in self._models for layer in model._flatten_layers()]

    @contextmanager
    def without_xla(self) -> Iterator[None]:
        """Return a context in which `train_on_batch` is compiled without XLA, whose code cannot call the servers."""
        compiled = [model for model in self._models if getattr(model, "compiled", False)]
        before = [model.jit_compile for model in compiled]
        for model in compiled:
            model.jit_compile, model.train_function = False, None
        try:
            yield
        finally:
            for model, value in zip(compiled, before, strict=True):
                model.jit_compile, model.train_function = value, None


class CountedBatches:
    """The batches of a loop that does not name them: as many as the pushes of the optimizer that has pushed most.

    A batch to which two optimizers are applied is pushed twice, and must count once.
    """

    def __init__(self) -> None:
        """Create the counts of a loop in which no optimizer has pushed."""
        self._pushes: Counter[int] = Counter()  # of each optimizer

    def repeats(self, optimizer: int) -> bool:
        """Count a push of an optimizer, and return whether the pushes of another one have counted its batch."""
        most = max(self._pushes.values(), default=0)
        self._pushes[optimizer] += 1
        return self._pushes[optimizer] <= most


class LoopGradientOp(GradientOp):
    """The gradient op of a training loop, whose steps may be functions that were traced in an earlier loop."""

    def __init__(self, weights: TrainedWeights, optimizers: ModelOptimizers, member: ScriptWorker) -> None:
        """Read the layout of the weights; see `GradientOp`."""
        super().__init__(weights, optimizers, member)
        self._given: Span | None = None  # of the batch that the loop has received last
        self._batches = CountedBatches()  # that are not leased
        self._flat = np.empty(0, np.float32)  # weights that the variables have been assigned last
        self.active = False

    def is_of(self, weights: TrainedWeights, optimizers: ModelOptimizers) -> bool:
        """Return whether this op trains these variables with these optimizers, so that traced functions can keep it."""
        mine = [*map(id, self.trained), *map(id, self._optimizers.optimizers)]
        return mine == [*map(id, weights.trainable_variables), *map(id, optimizers.optimizers)]

    def begin_loop(self, optimizers: ModelOptimizers) -> None:
        """Begin a loop, after its worker has registered the optimizers with the servers."""
        self._optimizers, self.active, self.error = optimizers, True, None
        self._batches = CountedBatches()

    def end_loop(self) -> None:
        """End the loop: a function that was traced in it may no longer push."""
        self.active = False
        self.end_spans()

    def begin_span(self, span: Span, leases: Leases) -> None:
        """Begin a batch of leased samples, whose gradient the next push contains."""
        self._given, self._leases = span, leases

    def end_spans(self) -> None:
        """End a pass over leased samples; later pushes belong to no lease."""
        self._given = self._leases = None

    def write(self, flat: np.ndarray) -> None:
        """Assign weights and moving statistics, `float32[n + m]`."""
        super().write(flat)
        self._flat = self.read()

    def check_assigned(self) -> None:
        """Check that the trained variables still have the values that the servers returned.

        Raises:
            Unsupported: The script has assigned other values, which the servers do not know.
        """
        now, trained = self.read(), self.layout.trained
        differs = ~np.isclose(now[:trained], self._flat[:trained], rtol=1e-6, atol=0, equal_nan=True)
        if differs.any():
            views = self.layout.views(np.concatenate([differs, np.zeros(self.layout.state, bool)]))
            names = [name for name, view in views.items() if view.any()]
            raise Unsupported(
                "within downpour.training, only optimizers may change weights. Received: values of "
                f"{', '.join(names[:3])} that differ from those that the servers returned. Assign no weights in the "
                "loop, and trace functions that apply an optimizer within the loop."
            )

    def send_rates(self, with_schedule: bool = False) -> None:
        """Send the learning rates to the servers if the loop has changed them; only worker 0 calls this method.

        Raises:
            DownpourError: They were not sent, and the next call sends them.
        """
        newer = max(0, self.updates)  # since the last barrier; negative before the first one of another loop
        rates = self._optimizers.new_rates(RATES_AHEAD, newer, with_schedule)
        if rates:
            send_rates(self._member, self._optimizers, rates)

    def send_rates_again(self) -> None:
        """Send the learning rates since the last barrier, as worker 0, to servers that may have returned to it."""
        if self._member.is_leader:
            send_rates(self._member, self._optimizers, self._optimizers.rates_since_barrier())

    def _more_arguments(self, optimizer: Any) -> list[Any]:
        return [np.int64(self._optimizers.index_of(optimizer))]

    def _push_pull(
        self, tensors: bytes, repeats: bool, gradient: np.ndarray | ChunkedVector, state: np.ndarray, norm: float,
        loss: float, samples: int, of_span: np.ndarray, *more: Any,
    ) -> np.ndarray:  # fmt: skip
        if not self.active:
            self.error = Unsupported(
                "a function that applies an optimizer must be traced within the downpour.training in which it is "
                "called. Received: a function that was traced in an earlier one, for other weights. Create the "
                "tf.function again."
            )
            raise self.error
        if self._member.is_leader:
            with kept_for_next_session():
                self.send_rates()
        span = self._given or Span(*NO_SPAN.tolist())
        count = span.stop - span.start if self._given else samples
        (optimizer,) = more
        repeats = self._given is None and self._batches.repeats(int(optimizer))
        flat = super()._push_pull(tensors, repeats, gradient, state, norm, loss, count, np.array(span, np.int64))
        self._flat = flat
        return flat


def _trained_of(group: Any) -> list[Any]:
    if isinstance(group, keras.layers.Layer):
        if not group.built or not group.trainable_variables:
            raise Unsupported(
                "a model must be built and have trainable weights when downpour.training begins. Received: the model "
                f"{group.name!r}, which has none. Call it on a batch first, or unfreeze a layer."
            )
        return list(group.trainable_variables)
    variables = list(group) if isinstance(group, list | tuple) else [group]
    wrong = [variable for variable in variables if not isinstance(variable, keras.Variable)]
    if wrong or not variables:
        received = type(wrong[0]).__name__ if wrong else "an empty list"
        raise Unsupported(
            f"downpour.training needs Keras models or lists of keras.Variable. Received: {received}. "
            "Pass the model, or its trainable_variables."
        )
    return variables
