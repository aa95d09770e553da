"""Hyper-parameters: which an optimizer uses, their bounds, and Keras's defaults for those left out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

from downpour.ps.core.update_rules import OPTIMIZERS


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """Hyper-parameters by Keras's names; None is the default of the optimizer that is chosen."""

    learning_rate: float | None = None
    momentum: float | None = None
    rho: float | None = None
    beta_1: float | None = None
    beta_2: float | None = None
    epsilon: float | None = None
    weight_decay: float | None = None
    initial_accumulator_value: float | None = None


_POSITIVE = ("a finite number > 0", lambda x: 0 < x < math.inf)
_NOT_NEGATIVE = ("a finite number >= 0", lambda x: 0 <= x < math.inf)
_DECAY = ("a number in [0, 1)", lambda x: 0 <= x < 1)
_BOUNDS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "learning_rate": _POSITIVE,
    "momentum": _DECAY,
    "rho": _DECAY,
    "beta_1": _DECAY,
    "beta_2": _DECAY,
    "epsilon": _POSITIVE,
    "weight_decay": _NOT_NEGATIVE,
    "initial_accumulator_value": _NOT_NEGATIVE,
}


def flag_of(key: str) -> str:
    """A hyper-parameter as the command line has it."""
    return "--" + {"initial_accumulator_value": "initial_accumulator"}.get(key, key).replace("_", "-")


def resolve(name: str, hyper: Hyperparameters) -> dict[str, float]:
    """The hyper-parameters that an optimizer uses: those given, the others by default.

    Raises:
        ValueError: There is no such optimizer, it does not use one that was given, or one is out of bounds.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}. Received: {name!r}.")
    defaults = OPTIMIZERS[name].defaults
    given = {f.name: getattr(hyper, f.name) for f in fields(hyper) if getattr(hyper, f.name) is not None}
    for key, value in given.items():
        if key not in defaults:
            users = ", ".join(other for other, rule in OPTIMIZERS.items() if key in rule.defaults)
            raise ValueError(
                f"--optimizer {name} must be given only {', '.join(map(flag_of, defaults))}. "
                f"Received: {flag_of(key)} {value!r}. Leave it out, or choose --optimizer {users}."
            )
        bound, holds = _BOUNDS[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not holds(value):
            raise ValueError(f"{key} must be {bound}. Received: {key}={value!r}.")
    return defaults | {key: float(value) for key, value in given.items()}
