"""The constraints of Keras on weights, which are applied to a tensor after each of its updates.

The equations are those of `keras.constraints`, in float32.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from downpour.protos.errors import InvalidRequest
from downpour.protos.layout import Constraint

Array = NDArray[np.float32]
F = np.float32


def _norms(w: Array, axes: tuple[int, ...]) -> Array:
    norms: Array = np.sqrt(np.sum(np.square(w), axis=axes, keepdims=True))
    return norms


def max_norm(w: Array, axes: tuple[int, ...], max_value: float, epsilon: float) -> Array:
    """Return w · min(|w|, max) / (ε + |w|)."""
    norms = _norms(w, axes)
    return w * (np.clip(norms, F(0), F(max_value)) / (F(epsilon) + norms))


def min_max_norm(
    w: Array, axes: tuple[int, ...], min_value: float, max_value: float, rate: float, epsilon: float
) -> Array:
    """Return w · (rate · clip(|w|, min, max) + (1 - rate) · |w|) / (ε + |w|)."""
    norms = _norms(w, axes)
    desired: Array = F(rate) * np.clip(norms, F(min_value), F(max_value)) + F(1 - rate) * norms
    return w * (desired / (F(epsilon) + norms))


def unit_norm(w: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    """Return w / (ε + |w|)."""
    return w / (F(epsilon) + _norms(w, axes))


def non_neg(w: Array, axes: tuple[int, ...]) -> Array:
    """Return w with 0 in place of negative elements."""
    return w * (w >= 0).astype(np.float32)


# By the name of the class in Keras: the function, and the attributes of the class that are its arguments.
CONSTRAINTS: dict[str, tuple[Callable[..., Array], tuple[str, ...]]] = {
    "MaxNorm": (max_norm, ("max_value",)),
    "MinMaxNorm": (min_max_norm, ("min_value", "max_value", "rate")),
    "UnitNorm": (unit_norm, ()),
    "NonNeg": (non_neg, ()),
}


def check_constraint(constraint: Constraint) -> None:
    """Raise InvalidRequest if a constraint is none of `CONSTRAINTS`, or has another number of values."""
    _, arguments = CONSTRAINTS.get(constraint.name, (None, ()))
    expected = len(arguments) + bool(constraint.axes)
    if constraint.name not in CONSTRAINTS or len(constraint.values) != expected:
        raise InvalidRequest(
            f"a constraint must be one of {', '.join(CONSTRAINTS)}; received {constraint}. Check that both sides run "
            "the same version."
        )


def constrain(constraint: Constraint, tensor: Array) -> Array:
    """Return the values of a tensor under a constraint that has been checked."""
    return CONSTRAINTS[constraint.name][0](tensor, constraint.axes, *constraint.values)
