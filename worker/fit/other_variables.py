"""The variables of a model that are not in the layout: integers, booleans, and frozen weights that callbacks change.

What a train step adds to an integer is summed over the workers. Of all other variables, the values of worker 0 hold.
If a train step adds up gradients, what it assigns decides on the updates of its worker: each worker has values of its
own then until `fit` ends, and again in the next call of `fit`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import keras
import numpy as np
import tensorflow as tf

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import Unsupported
from downpour.worker.fit.optimizer.assignments import Assignments, is_other, is_seed

MAX_SENT_BYTES = 4 << 20  # of worker 0's values in one decision
MAX_SUMMED = 65_536  # elements of integers that are summed


class _Shown(NamedTuple):
    """A variable, the value of all workers that it has after `fit`, and the one that this worker had in it."""

    variable: Any
    of_all: np.ndarray
    own: np.ndarray


_shown: WeakKeyDictionary[Any, list[_Shown]] = WeakKeyDictionary()  # of each model, since its last call of `fit`


class OtherVariables:
    """The variables of one model that are synchronised at barriers, during one call of `fit`."""

    def __init__(self, model: keras.Model, assigned: Assignments | None) -> None:
        """Read which variables there are.

        Args:
            model: A model that is built.
            assigned: The variables that the train step assigns; None if it assigns moving statistics at most.

        Raises:
            Unsupported: The train step assigns a variable that can be neither summed nor sent.
        """
        self._model = model
        self._variables = [v for v in model.non_trainable_variables if is_other(v)]
        self._own = [v for v in self._variables if assigned is not None and assigned.has_sums and v in assigned]
        self._summed = [v for v in self._variables if assigned is not None and v in assigned and _is_integer(v)]
        self._totals = [_flat(_value(v)) for v in self._summed]  # with what all workers have added
        for shown in _shown.pop(model, []):
            if _is_in(shown.variable, self._own) and np.array_equal(_value(shown.variable), shown.of_all):
                shown.variable.assign(shown.own)
        self._base = [_value(v) for v in self._summed]
        size = sum(each.size for each in self._base)
        if size > MAX_SUMMED:
            raise Unsupported(
                f"integer variables that a train step assigns must have at most {MAX_SUMMED:,} elements. Received: "
                f"{size:,}, in {', '.join(v.path for v in self._summed)}. Use a floating-point variable."
            )

    def begin_epoch(self) -> None:
        """Begin to count what the train step adds."""
        self._base = [_value(v) for v in self._summed]
        for index, (variable, base) in enumerate(self._pairs()):
            if not _is_in(variable, self._own):
                self._totals[index] = _flat(base)

    def added(self) -> list[float]:
        """Return what this worker has added to each element in this epoch, and then a 1 for each that has decreased."""
        differences = [_flat(_value(v)) - _flat(base) for v, base in self._pairs()]
        flat = np.concatenate([np.zeros(0), *differences])
        return [*flat.tolist(), *(flat < 0).astype(float).tolist()]

    @property
    def size(self) -> int:
        """The number of values of `added`."""
        return 2 * sum(base.size for base in self._base)

    def add_all(self, sums: Sequence[float]) -> None:
        """Assign the sums over all workers; an element that has decreased on a worker is no count and stays.

        A worker's own value stays until `end`.
        """
        total, decreased = np.split(np.array(sums, np.float64), 2)
        at = 0
        for index, (variable, base) in enumerate(self._pairs()):
            part = slice(at, at + base.size)
            own = _flat(_value(variable))
            self._totals[index] = np.where(decreased[part] > 0, own, self._totals[index] + total[part])
            if not _is_in(variable, self._own):
                _assign(variable, self._totals[index])
            at += base.size

    def end(self) -> None:
        """End `fit`: assign the counts of all workers to the variables that each worker has had of its own."""
        shown = []
        for variable, total in zip(self._summed, self._totals, strict=True):
            if _is_in(variable, self._own):
                own = _value(variable)
                _assign(variable, total)
                shown.append(_Shown(variable, _value(variable), own))
        _shown[self._model], self._own = shown, []

    def encode(self) -> list[pb.VariableValue]:
        """Return the values of worker 0; none of variables that are too large."""
        found, left = [], MAX_SENT_BYTES
        for index, variable in enumerate(self._variables):
            if tf.as_dtype(variable.dtype) != tf.string:
                content = self._value_of_all(variable).tobytes()
                if content and len(content) <= left:
                    left -= len(content)
                    found.append(pb.VariableValue(index=index, content=content))
        return found

    def decode(self, values: Sequence[pb.VariableValue]) -> list[str]:
        """Assign the values of worker 0, and return the paths of the variables that had others."""
        changed = []
        for value in values:
            variable = self._variables[value.index]
            own = _value(variable)
            if _is_in(variable, self._own):
                self._totals[self._place(variable)] = _flat(np.frombuffer(value.content, own.dtype))
            elif own.tobytes() != value.content:
                variable.assign(np.frombuffer(value.content, own.dtype).reshape(own.shape))
                changed.append(variable.path)
        return changed

    def _value_of_all(self, variable: Any) -> np.ndarray:
        """Return the value that holds for all workers; an empty array if there is none."""
        if not _is_in(variable, self._own):
            return _value(variable)
        if not _is_in(variable, self._summed):
            return np.empty(0)
        return self._totals[self._place(variable)].astype(_value(variable).dtype)

    def _place(self, variable: Any) -> int:
        return next(place for place, each in enumerate(self._summed) if each is variable)

    def _pairs(self) -> list[tuple[Any, np.ndarray]]:
        return list(zip(self._summed, self._base, strict=True))


def vary_dropout_seeds(model: keras.Model, rank: int) -> None:
    """Give each worker different random numbers, so that workers with the same initial seed drop different units."""
    for variable in model.non_trainable_variables:
        if rank and is_seed(variable):
            variable.assign(np.asarray(variable.value) + np.array([rank * 1_000_003, 0]).astype(variable.dtype))


def _is_integer(variable: Any) -> bool:
    return bool(tf.as_dtype(variable.dtype).is_integer)


def _is_in(variable: Any, variables: Sequence[Any]) -> bool:
    return any(variable is each for each in variables)


def _value(variable: Any) -> np.ndarray:
    return np.asarray(variable.value).copy()


def _flat(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64).ravel()


def _assign(variable: Any, values: np.ndarray) -> None:
    variable.assign(values.reshape(variable.shape).astype(_value(variable).dtype))
