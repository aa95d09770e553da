"""Converts the slots of an optimizer (its moments) between Keras's variables and the flat vectors of the servers.

During `fit` the slots are on the servers. Worker 0 uploads them if the optimizer has been used before, and downloads
them afterwards, so that a second `fit`, a saved model and plain Keras continue where training stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from downpour.ps.core.rules.rule import AVERAGE
from downpour.worker.fit.optimizer.optimizer_spec import hyperparameters_of, rule_of, updates_of

KERAS_AVERAGES = "_model_variables_moving_average"  # the attribute of an optimizer of Keras with use_ema


@dataclass(frozen=True)
class Slots:
    """The slots of an optimizer as flat vectors.

    Attributes:
        variables: The variables of the model, in the order of their values in the vectors.
        vectors: The vectors by the servers' name of the slot, each `float32[n]`.
    """

    variables: Sequence[Any]
    vectors: Mapping[str, np.ndarray]

    def get(self, name: str, variable: Any) -> np.ndarray | None:
        """Return a slot of one variable, flat; None if there is none."""
        vector, at = self.vectors.get(name), 0
        for each in self.variables:
            size = int(np.prod(each.shape))
            if each is variable and vector is not None:
                return vector[at : at + size]
            at += size
        return None

    def of(self, chosen: Sequence[bool]) -> Slots:
        """Return the slots of some of the variables."""
        variables = [variable for variable, is_chosen in zip(self.variables, chosen, strict=True) if is_chosen]
        return self._of_variables(variables, self)

    def updated(self, newer: Slots) -> Slots:
        """Return the slots of these and of newer variables, with the newer values where both have them."""
        known = {id(variable) for variable in newer.variables}
        earlier = [variable for variable in self.variables if id(variable) not in known]
        kept = self._of_variables(earlier, self)
        vectors = {name: np.concatenate([kept.vectors[name], newer.vectors[name]]) for name in newer.vectors}
        return Slots([*earlier, *newer.variables], vectors)

    @staticmethod
    def _of_variables(variables: Sequence[Any], source: Slots) -> Slots:
        found = {name: [source.get(name, variable) for variable in variables] for name in source.vectors}
        known = {name: [slot for slot in slots if slot is not None] for name, slots in found.items()}
        return Slots(variables, {name: np.concatenate([np.empty(0, np.float32), *ss]) for name, ss in known.items()})

    def write(self, optimizer: Any) -> None:
        """Assign the slots to a Keras optimizer that has been built; variables that it does not train are skipped."""
        places = {id(variable): place for place, variable in enumerate(optimizer._trainable_variables)}
        for name, vector in self.vectors.items():
            of_keras, at = _lists(optimizer)[name], 0
            for variable in self.variables:
                size = int(np.prod(variable.shape))
                place = places.get(id(variable))
                if place is not None and of_keras[place] is not None:  # Keras keeps none of what is overwritten
                    of_keras[place].assign(vector[at : at + size].reshape(variable.shape))
                at += size


def slots_of(optimizer: Any) -> Slots | None:
    """Return the slots of a Keras optimizer; None if it has none or is not built."""
    lists = _lists(optimizer)
    if not optimizer.built or not lists:
        return None
    variables = [
        variable for place, variable in enumerate(optimizer._trainable_variables)
        if all(of_keras[place] is not None for of_keras in lists.values())
    ]  # fmt: skip
    flat = {
        name: [np.asarray(slot.value, np.float32).ravel() for slot in of_keras if slot is not None]
        for name, of_keras in lists.items()
    }
    return Slots(variables, {name: np.concatenate(vectors) for name, vectors in flat.items()})


def write_derived(optimizer: Any, counted: Any = None) -> None:
    """Assign the variables of a built Keras optimizer that follow from the number of its updates, or of another's."""
    settings = hyperparameters_of(optimizer, type(optimizer))
    for attribute, value_after in rule_of(optimizer, type(optimizer)).keras_scalars.items():
        getattr(optimizer, attribute).assign(value_after(settings, updates_of(counted or optimizer)))


def _lists(optimizer: Any) -> dict[str, list[Any]]:
    attributes = dict(rule_of(optimizer, type(optimizer)).keras_slots)
    if optimizer.use_ema:
        attributes[AVERAGE] = KERAS_AVERAGES
    found = {name: list(getattr(optimizer, attribute, None) or ()) for name, attribute in attributes.items()}
    return {name: of_keras for name, of_keras in found.items() if any(slot is not None for slot in of_keras)}
