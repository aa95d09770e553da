"""Checks of a model's weights: the servers hold vectors of float32, and apply the constraints of Keras."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from downpour.protos.errors import Unsupported
from downpour.protos.layout import Constraint
from downpour.ps.core.rules.constraints import CONSTRAINTS


def check_weights(trained: Sequence[Any], others: Sequence[Any]) -> None:
    """Check that the servers can hold and update the variables of a model.

    Args:
        trained: The variables that the optimizers train.
        others: The other variables that the servers hold, such as moving statistics.

    Raises:
        Unsupported: No variable is trained, one has a constraint of the script's own, or another type than float32.
    """
    if not trained:
        raise Unsupported("a model must have trainable weights. Received: one without. Unfreeze a layer.")
    for variable in (*trained, *others):
        dtype = keras.backend.standardize_dtype(variable.dtype)
        if dtype != "float32":
            raise Unsupported(
                f"weights must be of type float32, in which the servers hold them. Received: {variable.path} of type "
                f"{dtype}. Use the dtype policy float32, or mixed_bfloat16, whose weights are float32."
            )
    for variable in trained:
        constraint_of(variable)


def constraint_of(variable: Any) -> Constraint | None:
    """Return the constraint on a variable for the servers; None if it has none.

    Raises:
        Unsupported: The constraint is none of Keras's, or a class that inherits from one.
    """
    given = variable.constraint
    if given is None:
        return None
    name = type(given).__name__
    if name not in CONSTRAINTS or type(given) is not getattr(keras.constraints, name):
        raise Unsupported(
            f"a constraint on weights must be one that the servers apply, keras.constraints.{', '.join(CONSTRAINTS)}. "
            f"Received: {variable.path} with {type(given).__module__}.{name}. Use one of these, or assign the weights "
            "in the model's train_step."
        )
    values = tuple(float(getattr(given, argument)) for argument in CONSTRAINTS[name][1])
    if not hasattr(given, "axis"):
        return Constraint(name, (), values)
    axes = given.axis if isinstance(given.axis, list | tuple) else [given.axis]
    rank = len(variable.shape)
    return Constraint(name, tuple(axis % rank for axis in axes), (*values, keras.config.epsilon()))


def check_strategy(owner: Any, what: str) -> None:
    """Check that a model or an optimizer was not made in the scope of a `tf.distribute` strategy.

    Raises:
        Unsupported: It was.
    """
    for name in ("_distribute_strategy", "_distribution_strategy"):
        strategy = type(getattr(owner, name, None)).__name__
        if strategy not in ("NoneType", "_DefaultDistributionStrategy"):
            raise Unsupported(
                f"{what} must not be made in the scope of a tf.distribute strategy, because the workers are the "
                f"replicas. Received: {strategy}. Remove the scope."
            )
