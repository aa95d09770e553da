"""Rows of every argument of `compile` and `fit`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from tests.support.fidelity.row import (
    BATCH,
    DIFFERENT,
    EPOCHS,
    JOINT,
    Result,
    Row,
    X,
    Y,
    compiled,
    data,
    fitted,
    result,
    small_model,
)

OWN_ORDER = "the order of the samples follows from `--seed`, and not from the seed of Keras"


def two_outputs() -> tuple[keras.Model, Any]:
    """Return a model with two named outputs and batches for it."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(3, activation="tanh")(inputs)
    outputs = {name: keras.layers.Dense(1, name=name)(hidden) for name in ("one", "two")}
    return keras.Model(inputs, outputs), data().map(lambda x, y: (x, {"one": y[:, :1], "two": y[:, 1:]}))


def _loss_weights() -> Result:
    model, batches = two_outputs()
    return fitted(compiled(model, loss={"one": "mse", "two": "mae"}, loss_weights={"one": 0.2, "two": 3.0}), batches)


def _weighted_metrics() -> Result:
    weighted = data().map(lambda x, y: (x, y, x[:, 0] ** 2))
    return fitted(compiled(small_model(), weighted_metrics=["mae"]), weighted)


def _auto_scale_loss() -> Result:
    return fitted(compiled(small_model(), auto_scale_loss=False))


COMPILE: dict[str, Row] = {
    row.name: row
    for row in [
        Row("compile", "optimizer", lambda: fitted(compiled(small_model(), "adam"))),
        Row("compile", "loss", lambda: fitted(compiled(small_model(), loss=keras.losses.Huber(0.5)))),
        Row("compile", "loss_weights", _loss_weights),
        Row("compile", "metrics", lambda: fitted(compiled(small_model(), metrics=["mae", "cosine_similarity"]))),
        Row("compile", "weighted_metrics", _weighted_metrics),
        Row("compile", "run_eagerly", lambda: fitted(compiled(small_model(), run_eagerly=True))),
        Row("compile", "steps_per_execution", lambda: fitted(compiled(small_model(), steps_per_execution=3))),
        Row("compile", "jit_compile", lambda: fitted(compiled(small_model(), jit_compile=True)), DIFFERENT,
            "XLA is off, with a line on the terminal, so that results are those of jit_compile=False"),
        Row("compile", "auto_scale_loss", _auto_scale_loss),
    ]
}  # fmt: skip


def _arrays(**arguments: Any) -> Callable[[], Result]:
    def run() -> Result:
        given = {"batch_size": BATCH * JOINT, "shuffle": False, "y": Y, **arguments}
        return fitted(compiled(small_model(), metrics=["mae"]), X, **given)

    return run


def _class_weight() -> Result:
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    labels = np.argmax(X[:, :3], 1)
    return fitted(
        compiled(model, loss="sparse_categorical_crossentropy"), X, y=labels, batch_size=BATCH * JOINT, shuffle=False,
        class_weight={0: 0.5, 1: 2.0, 2: 1.0},
    )  # fmt: skip


def _initial_epoch() -> Result:
    model = compiled(small_model())
    return fitted(model, initial_epoch=1, epochs=3)


def _callbacks() -> Result:
    seen: list[float] = []
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(float(logs["loss"])))
    found = fitted(compiled(small_model()), callbacks=[note])
    assert seen == found["losses"]
    found["facts"]["called"] = len(seen)
    return found


def _validation(**arguments: Any) -> Callable[[], Result]:
    def run() -> Result:
        model = compiled(small_model(), metrics=["mae"])
        history = model.fit(data(), epochs=3, verbose=0, **arguments)
        found = result(model, history)
        found["losses"] += [float(each) for each in history.history["val_loss"]]
        found["facts"]["validations"] = len(history.history["val_loss"])
        return found

    return run


HELD_OUT = (X[:20], Y[:20])
FIT: dict[str, Row] = {
    row.name: row
    for row in [
        Row("fit", "x", lambda: fitted(compiled(small_model()))),
        Row("fit", "y", _arrays()),
        Row("fit", "batch_size", _arrays(batch_size=12 * JOINT)),
        Row("fit", "epochs", lambda: fitted(compiled(small_model()), epochs=EPOCHS + 1)),
        Row("fit", "verbose", lambda: fitted(compiled(small_model()), verbose=2)),
        Row("fit", "callbacks", _callbacks),
        Row("fit", "validation_split", _arrays(validation_split=0.25)),
        Row("fit", "validation_data", _validation(validation_data=HELD_OUT)),
        Row("fit", "shuffle", _arrays(shuffle=True), bsp=OWN_ORDER),
        Row("fit", "class_weight", _class_weight),
        Row("fit", "sample_weight", _arrays(sample_weight=np.abs(X[:, 0]))),
        Row("fit", "initial_epoch", _initial_epoch),
        Row("fit", "steps_per_epoch", lambda: fitted(compiled(small_model()), data().repeat(), steps_per_epoch=6),
            bsp="steps_per_epoch counts the batches of all workers, each of a worker's size"),
        Row("fit", "validation_steps", _validation(validation_data=data(), validation_steps=1),
            bsp="the joint batch has more samples in one step of validation"),
        Row("fit", "validation_batch_size", _validation(validation_data=HELD_OUT, validation_batch_size=7)),
        Row("fit", "validation_freq", _validation(validation_data=HELD_OUT, validation_freq=2)),
    ]
}  # fmt: skip


def argument_rows() -> list[Row]:
    """Return a row for each argument of `compile` and `fit`.

    Raises:
        LookupError: Keras has an argument without a decision.
    """
    return [*_of(keras.Model.compile, "compile", COMPILE), *_of(keras.Model.fit, "fit", FIT)]


def _of(method: Any, name: str, decided: Mapping[str, Row]) -> list[Row]:
    arguments = [each for each in inspect.signature(method).parameters if each != "self"]
    new = [each for each in arguments if each not in decided]
    if new:
        raise LookupError(f"arguments {new} of {name} are new in Keras {keras.__version__}: decide what they do")
    return [decided[each] for each in arguments]
