"""Makes the weights of a model exist before `fit` begins: the layout of the flat vector is fixed then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from downpour.worker.fit.data_parts import peek
from downpour.worker.fit.distributed_optimizer import set_wire


class NoWire:
    """Stands for the line to the servers while a train step is only traced: nothing is sent."""

    def __init__(self) -> None:
        """Of no step."""
        self.loss: Any = None
        self.samples: Any = None

    def step(self, gradients: Mapping[int, Any]) -> None:
        """Drops them."""


def build(model: keras.Model, x: Any, y: Any = None, sample_weight: Any = None) -> Any:
    """Makes the weights of a model exist that has not seen data yet; returns `x` with nothing taken away.

    Args:
        model: Compiled.
        x: Of `fit`.
        y: Of `fit`.
        sample_weight: Of `fit`.
    """
    own_step = type(model).train_step is not keras.Model.train_step
    if _is_built(model) and not own_step:
        return x
    batch, x = x.peek() if hasattr(x, "of_worker") else peek(x, y, sample_weight)
    batch = keras.tree.map_structure(_tensor, batch)
    if own_step:
        _trace(model, batch)
    if not _is_built(model):
        _call(model, keras.utils.unpack_x_y_sample_weight(batch)[0])
    return x


def _is_built(model: keras.Model) -> bool:
    return bool(model.built) and all(layer.built for layer in model._flatten_layers())


def _call(model: keras.Model, inputs: Any) -> None:
    try:
        model(inputs, training=False)
    # A model with a train_step of its own need not be callable; weights that appear later are refused then.
    except Exception:
        if not model.trainable_variables:
            raise


def _trace(model: keras.Model, batch: Any) -> None:
    """Lets a train step of the script's own make its weights, which no call of the model need do."""
    optimizer = model.optimizer
    iterations = int(optimizer._iterations.numpy())
    set_wire(optimizer, NoWire())
    # What the step does not take, `fit` will say; what it cannot be traced on, it will run.
    try:
        step = model.train_step if model.run_eagerly else tf.function(model.train_step).get_concrete_function
        step(batch)
    except Exception:
        return
    finally:
        set_wire(optimizer, None)
        optimizer._iterations.assign(iterations)


def _tensor(array: Any) -> Any:
    """As Keras hands it to a train step."""
    if array is None:
        return None
    tensor = tf.convert_to_tensor(np.asarray(array) if hasattr(array, "iloc") else array)
    return tf.cast(tensor, keras.config.floatx()) if tensor.dtype.is_floating else tensor
