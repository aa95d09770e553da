"""What a model's metrics have gathered, as numbers that add up over workers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

MEAN = "mean"
SHARED = ("sum", MEAN)  # of Keras's ways to aggregate a variable over replicas


def read_metrics(model: keras.Model, leads: bool) -> list[float]:
    """What the model's metrics have gathered, to be added up over workers.

    Args:
        model: Whose metrics.
        leads: Whether this is worker 0, which alone counts where a variable's aggregation is neither sum nor mean.
    """
    values = [
        np.asarray(v.value, np.float64).ravel() * (leads or v.aggregation in SHARED) for v in _metric_variables(model)
    ]
    return np.concatenate(values).tolist() if values else []


def write_metrics(model: keras.Model, sums: np.ndarray, workers: float) -> None:
    """Gives a model's metrics what so many workers have gathered together, `float64[k]` as `read_metrics` has it."""
    at = 0
    for variable in _metric_variables(model):
        size = int(np.prod(variable.shape))
        found = sums[at : at + size] / (workers if variable.aggregation == MEAN else 1)
        variable.assign(found.reshape(variable.shape).astype(variable.dtype))
        at += size


def _metric_variables(model: keras.Model) -> list[Any]:
    return [variable for variable in model.metrics_variables if tf.as_dtype(variable.dtype).is_floating
            or tf.as_dtype(variable.dtype).is_integer]  # fmt: skip
