"""The form of an update rule, which is a row of the registry of optimizers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
Scalar = NDArray[np.float32]  # 0-d: a ufunc takes it 0.25 µs faster than a `np.float32`
Slots = tuple[Vector, ...]
Scalars = tuple[Scalar, ...]
Settings = Mapping[str, float]
AVERAGE = "average"  # the slot with the moving averages of the weights, as Keras names it


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """A hyperparameter of an optimizer, under the name that Keras gives it.

    Attributes:
        default: The default of the Keras optimizer.
        bounds: The limits of the value, as in pydantic: `gt` (above), `ge` (at least), `lt` (below), `le` (at most).
        doc: The sentence of the command line's help, without the names of the optimizers.
    """

    default: float
    bounds: Mapping[str, Any]
    doc: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of the registry of optimizers. Settings, checks and the translation from Keras are generated from it.

    Attributes:
        doc: A phrase that describes the optimizer in the command line's help.
        block: The equations on one block: reads weights `w` and gradient `g`, writes the new weights to `out`
            (which until then is scratch memory, like `s`) and updates the slots in place. Weights are decayed before.
        scalars: Computes the scalars that `block` receives from the settings and the number of the update, from 1.
        slots: Maps the settings to the names and initial values of the optimizer's slots, one value per weight. The
            names are those of Keras's variables.
        hyperparameters: The hyperparameters that the optimizer takes. `core.optimizer` implements `weight_decay` for
            every row that takes it.
        keras: The name of the equivalent class in `keras.optimizers`.
        keras_options: Attributes of that class that select this row, and whether each must be set (true) or not.
        keras_slots: The attribute of that class with the variables of a slot, by the name of the slot.
        keras_scalars: The attribute of that class with a variable that follows from the number of updates, and its
            value after t updates.
        counts: Whether the scalars depend on the number of the update.
        linear: Whether the step is proportional to the gradients, so that the stability limits of SGD apply.
    """

    doc: str
    block: Callable[[Vector, Vector, Vector, Vector, Slots, Scalars], None]
    scalars: Callable[[Settings, int], Scalars]
    slots: Callable[[Settings], dict[str, float]]
    hyperparameters: Mapping[str, Hyperparameter]
    keras: str = ""
    keras_options: Mapping[str, bool] = field(default_factory=dict)
    keras_slots: Mapping[str, str] = field(default_factory=dict)
    keras_scalars: Mapping[str, Callable[[Settings, int], float]] = field(default_factory=dict)
    counts: bool = False
    linear: bool = False

    @property
    def defaults(self) -> dict[str, float]:
        """The default value of every hyperparameter."""
        return {name: each.default for name, each in self.hyperparameters.items()}

    def bytes_per_weight(self, settings: Settings) -> int:
        """Return how many bytes an update must move per weight: it reads w and g, writes w', reads and writes slots."""
        return 4 * (3 + 2 * len(self.slots(settings)))


def float32(*values: float | np.float32) -> Scalars:
    """Return each value as a 0-dimensional float32 array, the form that rules take."""
    return tuple([np.array(value, np.float32) for value in values])
