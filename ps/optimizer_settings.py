"""The settings of the optimizers' hyperparameters, which follow from the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, create_model

from downpour.protos.settings import Settings
from downpour.ps.core.rules.hyperparameters import Hyperparameters, known_hyperparameters
from downpour.ps.core.rules.update_rules import OPTIMIZERS

REFERENCE_LEARNING_RATE = 0.1  # the learning rate of the reference model with plain SGD


def _optimizer_fields() -> dict[str, Any]:
    """Return the settings of all hyperparameters in the registry, for `create_model`."""
    fields: dict[str, Any] = {}
    for name, (each, users) in known_hyperparameters().items():
        used_by = "" if len(users) == len(OPTIMIZERS) else f" Used by {', '.join(users)}."
        default = " (default: that of the optimizer)"
        if name == "learning_rate":
            default = f" (default: {REFERENCE_LEARNING_RATE} for sgd, else that of the optimizer)"
        description = f"{each.doc}{used_by}".removesuffix(".") + default + "."
        fields[name] = float | None, Field(None, description=description, **each.bounds)
    return fields


if TYPE_CHECKING:

    class OptimizerSettings(Settings):
        """One setting for each hyperparameter of the optimizers in the registry."""

        learning_rate: float | None
        momentum: float | None

else:
    OptimizerSettings = create_model("OptimizerSettings", __base__=Settings, **_optimizer_fields())


def hyperparameters_of(settings: OptimizerSettings) -> Hyperparameters:
    """Return the hyperparameters that settings give; those that are not given are None."""
    return {name: getattr(settings, name, None) for name in known_hyperparameters()}
