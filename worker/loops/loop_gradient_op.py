"""The exchange of gradients and weights in a training loop of the script's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from downpour.protos.errors import Unsupported
from downpour.worker.fit.cluster.leases import Leases, Span
from downpour.worker.fit.cluster.member import ScriptWorker
from downpour.worker.fit.optimizer.gradient_op import NO_SPAN, GradientOp
from downpour.worker.fit.optimizer.model_optimizers import ModelOptimizers

RATES_AHEAD = 20_000  # updates for which a schedule is sent to the servers, until the next barrier


class TrainedWeights:
    """The models and variables of a training loop, as one model.

    Attributes:
        owners: The index of the optimizer of each trained variable, by the `id` of the variable.
    """

    def __init__(self, groups: Sequence[Any]) -> None:
        """Collect the variables of models or lists of variables, one for each optimizer.

        Raises:
            Unsupported: A model is not built, a group is neither, or two groups have a variable in common.
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
                        "every weight must be trained by one optimizer, because the servers keep its moments once. "
                        f"Received: {variable.path} twice. Give each optimizer weights of its own."
                    )

    @property
    def trainable_variables(self) -> list[Any]:
        """The variables that the optimizers train."""
        return list(self._trained)

    @property
    def non_trainable_variables(self) -> list[Any]:
        """The other variables of the models."""
        found = {id(v): v for model in self._models for v in model.variables if id(v) not in self.owners}
        return list(found.values())

    def _flatten_layers(self) -> list[Any]:
        return [layer for model in self._models for layer in model._flatten_layers()]

    @contextmanager
    def without_xla(self) -> Iterator[None]:
        """Within this context `train_on_batch` of the models is compiled without XLA, which cannot call the servers."""
        compiled = [model for model in self._models if getattr(model, "compiled", False)]
        before = [model.jit_compile for model in compiled]
        for model in compiled:
            model.jit_compile, model.train_function = False, None
        try:
            yield
        finally:
            for model, value in zip(compiled, before, strict=True):
                model.jit_compile, model.train_function = value, None


class LoopGradientOp(GradientOp):
    """The exchange of a training loop, whose steps may be functions that were traced for an earlier batch or loop."""

    def __init__(self, weights: TrainedWeights, optimizers: ModelOptimizers, member: ScriptWorker) -> None:
        """Read the layout of the weights; see `GradientOp`."""
        super().__init__(weights, optimizers, member)
        self._given: Span | None = None  # of the batch that the loop has received last
        self._flat = np.empty(0, np.float32)  # weights that the variables have been assigned last
        self.active = False

    def is_of(self, weights: TrainedWeights, optimizers: ModelOptimizers) -> bool:
        """Return whether this is the exchange of these variables and optimizers, whose traced functions it serves."""
        mine = [*map(id, self.trained), *map(id, self._optimizers.members)]
        return mine == [*map(id, weights.trainable_variables), *map(id, optimizers.members)]

    def begin_loop(self, optimizers: ModelOptimizers) -> None:
        """Begin a loop, for which the optimizers have been registered."""
        self._optimizers, self.active, self.error = optimizers, True, None

    def end_loop(self) -> None:
        """End the loop: a function that was traced in it may no longer push."""
        self.active = False
        self.end_spans()

    def begin_span(self, span: Span, leases: Leases) -> None:
        """Begin a batch of leased samples, which the next push uses."""
        self._given, self._leases = span, leases

    def end_spans(self) -> None:
        """End a pass over leased samples; later pushes use none."""
        self._given = self._leases = None

    def write(self, flat: np.ndarray) -> None:
        """Assign weights and moving statistics, `float32[n + m]`."""
        super().write(flat)
        self._flat = self.read()

    def check_assigned(self) -> None:
        """Check that the variables are as the servers have returned them.

        Raises:
            Unsupported: The script has assigned other values, which the servers do not have.
        """
        now, trained = self.read(), self.layout.trained
        differs = ~np.isclose(now[:trained], self._flat[:trained], rtol=1e-6, atol=0, equal_nan=True)
        if differs.any():
            views = self.layout.views(np.concatenate([differs, np.zeros(self.layout.state, bool)]))
            names = [name for name, view in views.items() if view.any()]
            raise Unsupported(
                "in downpour.training, weights must be changed by the optimizers alone. Received: other values of "
                f"{', '.join(names[:3])} than the servers returned. Assign no weights in the loop, and trace functions "
                "that apply an optimizer within it."
            )

    def send_rates(self, with_schedule: bool = False) -> None:
        """Send the learning rates to the servers, as worker 0, if the loop has assigned others."""
        newer = max(0, self.updates)  # since the last barrier; negative before the first one of another loop
        rates = self._optimizers.new_rates(RATES_AHEAD, newer, with_schedule)
        if rates:
            self._member.set_learning_rates(rates)

    def _push_pull(
        self, tensors: bytes, gradient: np.ndarray, state: np.ndarray, norm: float, loss: float, samples: int,
        of_span: np.ndarray,
    ) -> np.ndarray:  # fmt: skip
        if not self.active:
            self.error = Unsupported(
                "a function that applies an optimizer must be traced in the downpour.training that it is used in. "
                "Received: one of an earlier training with other weights. Build the function anew."
            )
            raise self.error
        if self._member.is_leader:
            self.send_rates()
        span = self._given or Span(*NO_SPAN.tolist())
        count = span.stop - span.start if self._given else samples
        flat = super()._push_pull(tensors, gradient, state, norm, loss, count, np.array(span, np.int64))
        self._flat = flat
        return flat


def _trained_of(group: Any) -> list[Any]:
    if isinstance(group, keras.layers.Layer):
        if not group.built or not group.trainable_variables:
            raise Unsupported(
                "a model must be built and have trainable weights when downpour.training begins. Received: "
                f"{group.name!r} without. Call it on a batch first."
            )
        return list(group.trainable_variables)
    variables = list(group) if isinstance(group, list | tuple) else [group]
    wrong = [variable for variable in variables if not isinstance(variable, keras.Variable)]
    if wrong or not variables:
        received = type(wrong[0]).__name__ if wrong else "an empty list"
        raise Unsupported(f"downpour.training needs Keras models or lists of keras.Variable. Received: {received}.")
    return variables
