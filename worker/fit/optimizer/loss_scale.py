"""Scaling of the loss with float16: each worker has a scale of its own, and a step that overflows changes no weight."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cache
from typing import Any, cast

import keras
import tensorflow as tf
from keras.src import api_export
from keras.src.saving import object_registration

from downpour.protos.errors import Unsupported

HALVINGS = 40  # of a scale, from 2^15 to the smallest number of float16; more non-finite steps in a row are no overflow


@cache
def distributed_class(mixin: Hashable, keras_class: Hashable) -> Any:
    """Return a class of distributed optimizers that inherits from a class of Keras, and is saved under its name."""
    base: Any = keras_class
    attributes = {"keras_class": keras_class, "__doc__": mixin.__doc__, "__module__": base.__module__}
    distributed = type(base.__name__, (cast(Any, mixin), base), attributes)
    # Configurations name the class of Keras, so that they are loaded by plain Keras and by clones of the model.
    for registry in (api_export.REGISTERED_OBJS_TO_NAMES, object_registration.GLOBAL_CUSTOM_NAMES):
        if base in registry:
            registry[distributed] = registry[base]
    return distributed


class LossScaleMixin:
    """The methods in which a `LossScaleOptimizer` differs whose inner optimizer is distributed.

    Keras does not call the inner optimizer if the gradients overflow. Here they are pushed: the servers drop a push
    that is not finite, count its samples as used, and no worker waits for it.
    """

    keras_class: Any = keras.optimizers.LossScaleOptimizer

    @tf.autograph.experimental.do_not_convert
    def scale_loss(self, loss: Any) -> Any:
        """Pass the loss on to the trace of the job, and return it multiplied by the scale."""
        me: Any = self
        if me.inner_optimizer.gradient_op is not None:
            me.inner_optimizer.gradient_op.set_loss(loss)
        return cast(Any, self.keras_class).scale_loss(self, loss)

    @tf.autograph.experimental.do_not_convert
    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """Push the unscaled gradients, and change the scale of this worker."""
        me: Any = self
        if not me.built:
            me.build(trainable_variables)
        variables = me._trainable_variables if trainable_variables is None else list(trainable_variables)
        if me.inner_optimizer.gradient_accumulation_steps:  # a sum must not contain what is not finite
            me._common_apply(grads, variables)
            return
        finite, scale = me.check_finite(grads), me.dynamic_scale
        unscaled = [
            gradient
            if gradient is None or me._overwrite_variable_with_gradient(variable)
            else keras.ops.divide(gradient, scale)
            for gradient, variable in zip(grads, variables, strict=True)
        ]
        me.inner_optimizer.apply(unscaled, variables)
        me.inner_optimizer._iterations.assign_sub(keras.ops.cast(keras.ops.logical_not(finite), "int64"))
        keras.ops.cond(finite, lambda: _grow(me), me._stateful_handle_non_finite_grads)


def _distributed() -> Any:
    keras_class: Any = LossScaleMixin.keras_class
    return distributed_class(cast(Any, LossScaleMixin), keras_class)


def is_loss_scale(optimizer: Any) -> bool:
    """Return whether an optimizer scales the loss."""
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer)


def innermost(optimizer: Any) -> Any:
    """Return the optimizer that computes the updates: the inner one of an optimizer that scales the loss."""
    return optimizer.inner_optimizer if is_loss_scale(optimizer) else optimizer


def let_scale(optimizer: Any, inner: Any) -> None:
    """Convert an optimizer that scales the loss, whose inner optimizer is distributed.

    Raises:
        Unsupported: It is of a class of the script, whose methods would be replaced.
    """
    if isinstance(optimizer, LossScaleMixin):
        return
    if type(optimizer) is not LossScaleMixin.keras_class:
        raise Unsupported(
            "an optimizer that scales the loss must be a keras.optimizers.LossScaleOptimizer. Received: "
            f"{type(optimizer).__module__}.{type(optimizer).__name__}, a subclass of it."
        )
    object.__setattr__(optimizer, "__class__", _distributed())
    object.__setattr__(inner, "scales_loss", True)


def _grow(optimizer: Any) -> None:
    """Double the scale after so many finite steps."""

    def double() -> None:
        optimizer.step_counter.assign(0)
        optimizer.dynamic_scale.assign(keras.ops.multiply(optimizer.dynamic_scale, 2.0))

    def count() -> None:
        optimizer.step_counter.assign_add(1)

    keras.ops.cond(keras.ops.equal(optimizer.step_counter, optimizer.dynamic_growth_steps - 1), double, count)
