"""The variables of a model that the servers hold, and their layout."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from downpour.protos.layout import STATE, TRAINED, Layout, Tensor, UpdateFlags
from downpour.worker.fit.optimizer.weight_checks import check_weights

if TYPE_CHECKING:
    import keras

    from downpour.worker.fit.optimizer.assignments import Assignments
    from downpour.worker.fit.optimizer.model_optimizers import ModelOptimizers


class ModelVariables:
    """The variables of a model that the servers hold.

    Attributes:
        trained: The variables that the optimizers train.
        state: The other variables: the moving statistics, then frozen weights that the train step assigns.
        averaged: The number of elements of the moving statistics.
        replaced: The places of the variables whose assigned values replace those on the servers.
        layout: The layout of the flat vector: the trained variables, then the state.
    """

    def __init__(self, model: keras.Model, optimizers: ModelOptimizers, assigned: Assignments | None) -> None:
        """Read the variables of a model; see `GradientOp`."""
        self.trained = [*model.trainable_variables, *optimizers.extra]
        frozen, averaged = _not_trained(model)
        averaged = [v for v in averaged if assigned is None or not assigned.is_sum(v)]
        replaced = [v for v in frozen if assigned is not None and v in assigned]
        self._frozen = [v for v in frozen if assigned is None or v not in assigned]
        self.state = [*averaged, *replaced]
        self.averaged = sum(int(np.prod(v.shape)) for v in averaged)
        check_weights(self.trained, self.state)
        self.layout = _layout(self.trained, self.state, optimizers)
        count = len(self.trained)
        self.replaced = {*range(count), *range(count + len(averaged), len(self.layout.tensors))}

    @property
    def all(self) -> list[Any]:
        """The variables, in the order of the layout."""
        return [*self.trained, *self.state]

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the frozen weights, which must be equal on all workers."""
        digest = hashlib.sha256()
        for variable in self._frozen:
            digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
        return digest.hexdigest()

    def is_same(self, other: ModelVariables) -> bool:
        """Return whether these are the same variables with the same layout, for code that was traced with them."""
        if (self.layout, self.averaged, self.replaced) != (other.layout, other.averaged, other.replaced):
            return False
        return all(mine is theirs for mine, theirs in zip(self.all, other.all, strict=True))


def _layout(trained: Sequence[Any], state: Sequence[Any], optimizers: ModelOptimizers) -> Layout:
    seen: Counter[str] = Counter()
    tensors = []
    for section, variables in ((TRAINED, trained), (STATE, state)):
        for variable in variables:
            seen[variable.path] += 1  # two layers of a subclassed model may have one name
            again = f"#{seen[variable.path]}" if seen[variable.path] > 1 else ""
            flags = optimizers.flags_of(variable) if section == TRAINED else UpdateFlags()
            tensors.append(Tensor(variable.path + again, tuple(variable.shape), section, flags))
    return Layout(tuple(tensors))


def _not_trained(model: keras.Model) -> tuple[list[Any], list[Any]]:
    """Return the frozen weights, and the floating-point variables that training changes (moving statistics)."""
    layers = model._flatten_layers()
    weights = {id(v) for layer in layers for v in getattr(layer, "_trainable_variables", ())}
    rest = [v for v in model.non_trainable_variables if tf.as_dtype(v.dtype).is_floating]
    return [v for v in rest if id(v) in weights], [v for v in rest if id(v) not in weights]
