"""Converts the slots of an optimizer (its moments) between Keras's variables and the flat vectors of the servers.

During `fit` the slots are on the servers. Worker 0 uploads them if the optimizer has been used before, and downloads
them afterwards, so that a second `fit`, a saved model and plain Keras continue where training stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from downpour.worker.fit.optimizer.optimizer_spec import hyperparameters_of, rule_of


@dataclass(frozen=True)
class Slots:
    """The slots of an optimizer as flat vectors.

    Attributes:
        variables: The variables of the model, in the order of their values in the vectors.
        vectors: The vectors by the servers' name of the slot, each `float32[n]`.
    """

    variables: Sequence[Any]
    vectors: Mapping[str, np.ndarray]

    def are_of(self, variables: Sequence[Any]) -> bool:
        """Return whether these are the slots of exactly these variables, in this order."""
        return [id(v) for v in self.variables] == [id(v) for v in variables]

    def write(self, optimizer: Any) -> None:
        """Assign the slots to a Keras optimizer that has been built; variables that it does not train are skipped."""
        places = {id(variable): place for place, variable in enumerate(optimizer._trainable_variables)}
        for name, vector in self.vectors.items():
            of_keras, at = _lists(optimizer)[name], 0
            for variable in self.variables:
                size = int(np.prod(variable.shape))
                place = places.get(id(variable))
                if place is not None:
                    of_keras[place].assign(vector[at : at + size].reshape(variable.shape))
                at += size


def slots_of(optimizer: Any) -> Slots | None:
    """Return the slots of a Keras optimizer; None if it has none or is not built."""
    lists = _lists(optimizer)
    if not optimizer.built or not lists:
        return None
    flat = {name: [np.asarray(v.value, np.float32).ravel() for v in of_keras] for name, of_keras in lists.items()}
    return Slots(
        list(optimizer._trainable_variables), {name: np.concatenate(vectors) for name, vectors in flat.items()}
    )


def write_derived(optimizer: Any) -> None:
    """Assign the variables of a built Keras optimizer that follow from the number of its updates."""
    settings = hyperparameters_of(optimizer, type(optimizer))
    for attribute, value_after in rule_of(optimizer, type(optimizer)).keras_scalars.items():
        getattr(optimizer, attribute).assign(value_after(settings, int(optimizer._iterations.numpy())))


def _lists(optimizer: Any) -> dict[str, list[Any]]:
    attributes = rule_of(optimizer, type(optimizer)).keras_slots
    found = {
        name: [variable for variable in getattr(optimizer, attribute, None) or () if variable is not None]
        for name, attribute in attributes.items()
    }
    return {name: of_keras for name, of_keras in found.items() if of_keras}
