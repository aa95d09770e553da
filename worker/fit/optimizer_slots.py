"""The slots of an optimizer (its moments) between Keras and the servers.

While `fit` runs they live on the servers. Worker 0 brings them there if the optimizer has been used before, and has
them afterwards, so that a second `fit`, a saved model and plain Keras go on where training stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ATTRIBUTES: Mapping[str, tuple[str, ...]] = {  # where Keras's optimizers have a slot of the server's name
    "momentum": ("momentums", "_momentums"),
    "velocity": ("_velocities",),
    "accumulator": ("_accumulators",),
}


@dataclass(frozen=True)
class Slots:
    """What an optimizer has gathered.

    Attributes:
        variables: Of the model, in the order of the vectors.
        vectors: By the server's name of the slot, `float32[n]`.
    """

    variables: Sequence[Any]
    vectors: Mapping[str, np.ndarray]

    def are_of(self, variables: Sequence[Any]) -> bool:
        """Whether these are the slots of exactly these variables, in this order."""
        return [id(v) for v in self.variables] == [id(v) for v in variables]

    def write(self, optimizer: Any) -> None:
        """Gives them to a Keras optimizer that is built for variables some or all of which are these."""
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
    """What a Keras optimizer has; None if it is not built, or has none."""
    lists = _lists(optimizer)
    if not optimizer.built or not lists:
        return None
    flat = {name: [np.asarray(v.value, np.float32).ravel() for v in of_keras] for name, of_keras in lists.items()}
    return Slots(
        list(optimizer._trainable_variables), {name: np.concatenate(vectors) for name, vectors in flat.items()}
    )


def _lists(optimizer: Any) -> dict[str, list[Any]]:
    found = {
        name: [variable for variable in getattr(optimizer, attribute) if variable is not None]
        for name, attributes in ATTRIBUTES.items()
        for attribute in attributes
        if getattr(optimizer, attribute, None)
    }
    return {name: of_keras for name, of_keras in found.items() if of_keras}
