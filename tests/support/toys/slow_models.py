"""Models whose steps or evaluations take longer than the time allowed for the end of a job."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

EVALUATED = 250  # samples in a batch of an evaluation: more than in one of training
EVALUATION_S, STEP_S = 1.0, 600.0  # least time for a batch of an evaluation, and for a step that never ends


def slow_evaluation(input_shape: tuple[int, ...], classes: int) -> Any:
    """Return a model of three convolutions; an evaluation of 10,000 samples takes 40 s on the fastest machine."""
    from keras import Input, Sequential, layers

    def wait(x: np.ndarray) -> np.ndarray:
        if len(x) == EVALUATED:
            threading.Event().wait(EVALUATION_S)
        return x

    return Sequential(
        [
            Input(input_shape),
            layers.Reshape((*input_shape, 1)),
            *(layers.Conv2D(64, 3, activation="relu") for _ in range(3)),
            layers.Flatten(),
            _calling(wait),
            layers.Dense(classes, activation="softmax"),
        ]
    )


def one_long_step(input_shape: tuple[int, ...], classes: int) -> Any:
    """Return a model whose steps do not end once the folder LONG_STEP_DIR exists.

    Each process that is in such a step adds a file to the folder.
    """
    from keras import Input, Sequential, layers

    folder = Path(os.environ["LONG_STEP_DIR"])

    def wait(x: np.ndarray) -> np.ndarray:
        if folder.is_dir():
            (folder / str(os.getpid())).touch()
            threading.Event().wait(STEP_S)
        return x

    return Sequential(
        [
            Input(input_shape),
            layers.Flatten(),
            _calling(wait),
            layers.Dense(classes, activation="softmax"),
        ]
    )


def _calling(function: Callable[[np.ndarray], np.ndarray]) -> Any:
    """Return a layer that passes its input on after a call of a Python function with it."""
    import keras
    import tensorflow as tf

    @keras.saving.register_keras_serializable("tests")
    class Calling(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            waited = tf.numpy_function(function, [x], tf.float32)
            with tf.control_dependencies([waited]):
                return tf.identity(x)

    return Calling()
