"""A row of the table, and the small model and data that most rows train."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from downpour import DistributedOptimizer

SAME = "same"
REFUSED = "refused"
DIFFERENT = "documented difference"

SAMPLES, BATCH, EPOCHS = 96, 8, 2
JOINT = int(os.environ.get("FIDELITY_JOINT", "1"))  # plain Keras takes so many batches at once, as BSP's workers do
RNG = np.random.default_rng(5)
X = RNG.normal(size=(SAMPLES, 4)).astype(np.float32)
Y = (X @ RNG.normal(size=(4, 2)) + 0.1).astype(np.float32)

Result = dict[str, Any]  # weights: list of arrays; losses: list of numbers; facts: what is equal in every cluster


@dataclass(frozen=True)
class Row:
    """One feature of Keras, and what becomes of it.

    Attributes:
        kind: The part of Keras: an optimizer, `compile`, `fit`, a callback, a variable, data or a model.
        name: The name of the feature within its kind.
        run: Trains with the feature, and returns what is compared.
        decision: SAME, REFUSED, or DIFFERENT from plain Keras with one worker.
        words: A regular expression that the refusal matches, or the difference.
        bsp: With two workers in the mode `bsp`: SAME as one process with the joint batch, or why it is not.
        several: With several workers: SAME facts, or a regular expression that their refusal matches.
        package: The package that the feature needs besides Keras; without it the row is left out.
    """

    kind: str
    name: str
    run: Callable[[], Result]
    decision: str = SAME
    words: str = ""
    bsp: str = SAME
    several: str = SAME
    package: str = ""

    @property
    def can_run(self) -> bool:
        """Return whether the package that the feature needs is installed."""
        return not self.package or importlib.util.find_spec(self.package) is not None

    @property
    def key(self) -> str:
        """Return the name of the row in reports."""
        return f"{self.kind}: {self.name}"


def data(x: np.ndarray = X, y: np.ndarray = Y) -> tf.data.Dataset:
    """Return batches in a fixed order; of these, worker r of P trains on the batches r, r + P, …"""
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH * JOINT)


def small_model(**options: Any) -> keras.Model:
    """Return a model of two layers with fixed initial weights."""
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3, activation="tanh", **options), keras.layers.Dense(2)]
    )


def compiled(model: keras.Model, optimizer: Any = None, **options: Any) -> keras.Model:
    """Compile a model with a distributed optimizer, by default SGD with momentum."""
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9) if optimizer is None else optimizer
    model.compile(DistributedOptimizer(optimizer), **{"loss": "mse", "jit_compile": False, **options})
    return model


def result(model: keras.Model, history: Any = None, **facts: Any) -> Result:
    """Return the weights of a model, the losses of its training and further facts."""
    found: Result = {"weights": [np.asarray(w) for w in model.get_weights()], "losses": [], "facts": facts}
    if history is not None:
        found["losses"] = [float(loss) for loss in history.history.get("loss", ())]
        facts["epochs"] = list(history.epoch)
        facts["logs"] = sorted(history.history)
    return found


def fitted(model: keras.Model, x: Any = None, **arguments: Any) -> Result:
    """Train a compiled model, by default on the fixed batches, and return the result."""
    given = {"epochs": EPOCHS, "verbose": 0, **arguments}
    return result(model, model.fit(data() if x is None else x, **given))
