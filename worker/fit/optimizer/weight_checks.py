"""Checks of a model's weights: the servers hold vectors of float32, and update them without constraints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from downpour.protos.errors import Unsupported


def check_weights(trained: Sequence[Any], others: Sequence[Any]) -> None:
    """Check that the servers can hold and update the variables of a model.

    Args:
        trained: The variables that the optimizers train.
        others: The other variables that the servers hold, such as moving statistics.

    Raises:
        Unsupported: No variable is trained, one has a constraint, or one has another type than float32.
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
        if variable.constraint is not None:
            raise Unsupported(
                f"weights must have no constraint, which the servers do not apply. Received: {variable.path} with "
                f"{type(variable.constraint).__name__}. Use a regularizer."
            )


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
