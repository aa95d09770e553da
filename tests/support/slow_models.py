"""A model whose steps take long beside the time that the end of a job may take."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any


def three_convolutions(input_shape: tuple[int, ...], classes: int) -> Any:
    """About half a second a step, and minutes for an evaluation of all test images."""
    from keras import Input, Sequential, layers

    return Sequential(
        [
            Input(input_shape),
            layers.Reshape((*input_shape, 1)),
            *(layers.Conv2D(64, 3, activation="relu") for _ in range(3)),
            layers.Flatten(),
            layers.Dense(classes, activation="softmax"),
        ]
    )


def one_long_step(input_shape: tuple[int, ...], classes: int) -> Any:
    """A step lasts a minute once the folder of the variable LONG_STEP_DIR exists; a file in it says who is in one."""
    import keras
    import tensorflow as tf

    folder = Path(os.environ["LONG_STEP_DIR"])

    def dawdle(x: Any) -> Any:
        if folder.is_dir():
            (folder / str(os.getpid())).touch()
            time.sleep(60.0)
        return x

    @keras.saving.register_keras_serializable("tests")
    class Dawdling(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            waited = tf.numpy_function(dawdle, [x], tf.float32)
            with tf.control_dependencies([waited]):
                return tf.identity(x)

    return keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Flatten(),
            Dawdling(),
            keras.layers.Dense(classes, activation="softmax"),
        ]
    )
