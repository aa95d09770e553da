"""The hyperparameters of the optimizers: which each one takes, their bounds, and Keras's defaults for missing ones."""

from __future__ import annotations

import math
from collections.abc import Mapping

from downpour.ps.core.rules.rule import Hyperparameter
from downpour.ps.core.rules.update_rules import OPTIMIZERS

# Values by Keras's names. None, and a name that is missing, stand for the default of the chosen optimizer.
Hyperparameters = dict[str, float | None]


def known_hyperparameters() -> dict[str, tuple[Hyperparameter, tuple[str, ...]]]:
    """Return every hyperparameter of the registry by name, with the names of the optimizers that take it."""
    found: dict[str, tuple[Hyperparameter, tuple[str, ...]]] = {}
    for optimizer, rule in OPTIMIZERS.items():
        for name, each in rule.hyperparameters.items():
            first, users = found.get(name, (each, ()))
            found[name] = first, (*users, optimizer)
    return found


def flag_of(name: str) -> str:
    """Return the command-line flag of a hyperparameter."""
    return "--" + name.replace("_", "-")


def resolve(optimizer: str, given: Mapping[str, float | None]) -> dict[str, float]:
    """Return all hyperparameters of an optimizer: the given values, and the defaults of the others.

    Raises:
        ValueError: The registry has no such optimizer, the optimizer does not take a given hyperparameter, or a value
            is out of bounds.
    """
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}. Received: {optimizer!r}.")
    rule = OPTIMIZERS[optimizer]
    values = {name: value for name, value in given.items() if value is not None}
    for name, value in values.items():
        if name not in rule.hyperparameters:
            users = ", ".join(other for other, row in OPTIMIZERS.items() if name in row.hyperparameters)
            instead = f", or choose --optimizer {users}" if users else ""
            raise ValueError(
                f"--optimizer {optimizer} must be given only {', '.join(map(flag_of, rule.hyperparameters))}. "
                f"Received: {flag_of(name)} {value!r}. Leave it out{instead}."
            )
        bounds = rule.hyperparameters[name].bounds
        if isinstance(value, bool) or not isinstance(value, int | float) or not _holds(value, bounds):
            raise ValueError(f"{name} must be {_described(bounds)}. Received: {name}={value!r}.")
    return rule.defaults | {name: float(value) for name, value in values.items()}


def _holds(value: float, bounds: Mapping[str, float]) -> bool:
    within = (
        value > bounds.get("gt", -math.inf),
        value >= bounds.get("ge", -math.inf),
        value < bounds.get("lt", math.inf),
        value <= bounds.get("le", math.inf),
    )
    return math.isfinite(value) and all(within)


def _described(bounds: Mapping[str, float]) -> str:
    words = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    return "a finite number " + " and ".join(f"{words[kind]} {bound:g}" for kind, bound in bounds.items())
