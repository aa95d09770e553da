"""The optimizer of a script whose updates are computed on the servers: `DistributedOptimizer`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, cast

import keras
import tensorflow as tf
from keras.src.optimizers.base_optimizer import BaseOptimizer
from tensorflow.python.ops import control_flow_util

from downpour.protos.errors import Unsupported
from downpour.ps.core.rules.rule import AVERAGE
from downpour.worker import script
from downpour.worker.fit.optimizer.assignments import Branch, current_branch
from downpour.worker.fit.optimizer.loss_scale import distributed_class, is_loss_scale, let_scale
from downpour.worker.fit.optimizer.optimizer_checks import check_supported
from downpour.worker.fit.optimizer.optimizer_slots import slots_of
from downpour.worker.fit.optimizer.whole_state import WholeState, keep_slots, kept_slots_of, restore_deferred

if TYPE_CHECKING:
    from downpour.worker.fit.optimizer.gradient_op import GradientOp


def DistributedOptimizer(optimizer: Any) -> Any:  # noqa: N802 - named like the classes of optimizers
    """Return an optimizer whose updates are computed on the parameter servers.

        model.compile(optimizer=DistributedOptimizer(keras.optimizers.SGD(0.1)), loss="mse", metrics=["mae"])
        model.fit(x, y, epochs=5)

    In a script that `downpour run` has started, `fit` of a model that is compiled with it pushes gradients to the
    servers and pulls weights from them. In any other process the optimizer is returned unchanged, so that the script
    also runs with `python`.

    Args:
        optimizer: A Keras optimizer, or the name or configuration of one, as `keras.optimizers.get` accepts it. The
            object itself is converted, so that variables and schedules that the script holds stay in use.

    Returns:
        The same object. It is still an instance of its Keras class.

    Raises:
        Unsupported: The servers do not implement this optimizer.
        Unsupported: The optimizer has an argument that the servers do not implement, or an attribute
            that its arguments do not explain, or a method that is not that of Keras.
        ValueError: Keras does not know an optimizer of this name.
    """
    optimizer = keras.optimizers.get(optimizer)
    if script.member is None or isinstance(optimizer, DistributedMixin):
        return optimizer
    if is_loss_scale(optimizer):
        let_scale(optimizer, DistributedOptimizer(optimizer.inner_optimizer))
        return optimizer
    check_supported(optimizer)
    slots = slots_of(optimizer)
    # Only its class changes, because schedules and variables are the user's own objects.
    object.__setattr__(
        optimizer, "__class__", distributed_class(cast(Any, DistributedMixin), cast(Any, type(optimizer)))
    )
    keep_slots(optimizer, slots)
    return optimizer


class DistributedMixin(WholeState):
    """The methods in which a distributed optimizer differs from the class of Keras that it also inherits from.

    Attributes:
        gradient_op: The connection to the servers during `fit`; None otherwise.
        scales_loss: Whether it is the inner optimizer of one that scales the loss.
    """

    gradient_op: GradientOp | None = None
    scales_loss = False

    def build(self, variables: Sequence[Any]) -> None:
        """Build the optimizer without slots, which the servers have."""
        keras.optimizers.Optimizer.build(self, variables)
        restore_deferred(self)

    @tf.autograph.experimental.do_not_convert
    def scale_loss(self, loss: Any) -> Any:
        """Pass the loss on to the trace of the job, and return it multiplied by the `loss_scale_factor`."""
        if self.gradient_op is not None:
            self.gradient_op.set_loss(loss)
        return cast(Any, keras.optimizers.Optimizer).scale_loss(self, loss)

    @tf.autograph.experimental.do_not_convert
    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """Push gradients to the servers and assign the weights that they return.

        Raises:
            RuntimeError: The optimizer is not applied within `fit`.
            Unsupported: It is applied in a function that is compiled with XLA.
            ValueError: No variable has a gradient, or the optimizer is given no variables before it is built.
        """
        if len(grads) == 0:
            return
        if control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
            raise Unsupported(
                "a function that applies a distributed optimizer must not be compiled with XLA, whose code cannot call "
                "the servers. Received: an optimizer that is applied in a tf.function with jit_compile=True. Leave "
                "jit_compile out there; functions that compute losses and gradients may have it."
            )
        if self.gradient_op is None and not _recorders:
            raise RuntimeError(
                "a DistributedOptimizer must be applied within fit of a model that was compiled with it. Received: a "
                "call from train_on_batch, or from a training loop of the script. Put the loop into "
                "`with downpour.training(model, optimizer) as job:`."
            )
        me: Any = self
        if trainable_variables is None and not me.built:
            raise ValueError(
                "an optimizer must be built on a list of variables, or be given them with the gradients. Received: "
                "gradients alone. Pass the variables to apply."
            )
        variables = me._trainable_variables if trainable_variables is None else list(trainable_variables)
        if not me.built:
            me.build(variables)
        me._check_variables_are_known(variables)
        grads, variables = me._filter_empty_gradients(grads, variables)
        if self.gradient_op is None or _recorders:
            _recorders[-1].record(self, variables)
            return
        if me.loss_scale_factor is not None:
            pairs = zip(grads, variables, strict=True)
            grads = [g if me._overwrite_variable_with_gradient(v) else g / me.loss_scale_factor for g, v in pairs]
        if self.gradient_op.local_step(self, grads, variables):
            return
        if me.gradient_accumulation_steps:
            self._accumulate(self.gradient_op, grads, variables)
        else:
            self.gradient_op.step(self, dict(zip(map(id, variables), grads, strict=True)))
        me._iterations.assign_add(1)

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        """Assign the averages of `use_ema`, which the servers have, to the variables, as `fit` does at its end.

        Raises:
            Unsupported: A training loop has not ended, whose weights only its optimizers may change.
            Unsupported: The optimizer is large, and only worker 0 keeps its averages.
        """
        if not cast(Any, self).use_ema:
            return
        if self.gradient_op is not None and self.slot_source is None:
            raise Unsupported(
                "within downpour.training, only optimizers may change weights. Received: a call of "
                "finalize_variable_values. Call it after the with statement."
            )
        if self.dropped and self.slot_source is None:
            raise Unsupported(
                "the averages of a large optimizer must be assigned on worker 0, which keeps them. Received: a call on "
                "another worker. Call it `if downpour.rank() == 0`."
            )
        slots = self.slot_source() if self.slot_source is not None else kept_slots_of(self)
        for variable in var_list:
            average = slots.get(AVERAGE, variable) if slots is not None else None
            if average is not None:
                variable.assign(average.reshape(variable.shape))

    def _accumulate(self, gradient_op: GradientOp, grads: Sequence[Any], variables: Sequence[Any]) -> None:
        """Add gradients to those of earlier batches of this worker, and push their mean after so many batches."""
        me: Any = self
        batches = me.gradient_accumulation_steps
        sums = [me._accumulated_gradients[me._get_variable_index(variable)] for variable in variables]

        def push() -> None:
            means = [(accumulated + gradient) / batches for accumulated, gradient in zip(sums, grads, strict=True)]
            gradient_op.step(self, dict(zip(map(id, variables), means, strict=True)))
            me._backend_reset_gradient_accumulators()

        def add() -> None:
            for accumulated, gradient in zip(sums, grads, strict=True):
                accumulated.assign(accumulated + gradient)

        keras.ops.cond((me._iterations + 1) % batches == 0, push, add)


class AppliedOptimizers:
    """Records the optimizers that a train step applies while it is only traced; nothing is sent and no weight changes.

    Attributes:
        found: The optimizers and their variables, by id.
        branches: The branches of the step in which they are applied.
    """

    def __init__(self) -> None:
        """Create a record in which no optimizer has been applied."""
        self.found: dict[int, tuple[Any, dict[int, Any]]] = {}
        self.branches: set[Branch] = set()

    def record(self, optimizer: Any, variables: Sequence[Any]) -> None:
        """Record that an optimizer is applied to variables."""
        of_optimizer = self.found.setdefault(id(optimizer), (optimizer, {}))[1]
        of_optimizer.update({id(variable): variable for variable in variables})
        self.branches.add(current_branch())


_recorders: list[AppliedOptimizers] = []  # while a train step is traced


@contextmanager
def recorded() -> Iterator[AppliedOptimizers]:
    """Within this context, no optimizer changes anything; the optimizers that are applied are recorded."""
    recorder = AppliedOptimizers()

    def record(optimizer: Any, variables: Sequence[Any]) -> bool:
        recorder.record(optimizer, variables)
        return False

    _recorders.append(recorder)
    try:
        with intercepted(record):
            yield recorder
    finally:
        _recorders.remove(recorder)


@contextmanager
def intercepted(plain_applied: Callable[[Any, Sequence[Any]], bool]) -> Iterator[None]:
    """Within this context, call a function when an optimizer that is not distributed is applied.

    Args:
        plain_applied: A function from an optimizer and its variables to whether the optimizer is applied in fact.
    """
    own = BaseOptimizer.apply

    @wraps(own)
    def apply(self: Any, grads: Any, trainable_variables: Any = None) -> Any:
        variables = list(self._trainable_variables if trainable_variables is None else trainable_variables)
        given = [variable for variable, gradient in zip(variables, grads, strict=False) if gradient is not None]
        if plain_applied(self, given):
            return own(self, grads, variables if trainable_variables is not None else None)
        return None

    setattr(BaseOptimizer, own.__name__, apply)
    try:
        yield
    finally:
        setattr(BaseOptimizer, own.__name__, own)


def set_gradient_op(optimizer: Any, gradient_op: GradientOp | None) -> None:
    """Connect an optimizer to the servers, or disconnect it with None; Keras does not track the attribute."""
    object.__setattr__(optimizer, "gradient_op", gradient_op)
