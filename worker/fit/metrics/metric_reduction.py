"""Reduces the state of a model's metrics over all workers, as the variables' `aggregation` says."""

from __future__ import annotations

import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf

MEAN = "mean"
REDUCED = ("sum", MEAN)  # aggregations to which all workers contribute; to others only worker 0 does


def read_metrics(model: keras.Model, is_leader: bool) -> list[float]:
    """Return the state of a model's metrics as values whose sums over all workers `write_metrics` accepts.

    Args:
        model: The model.
        is_leader: Whether this is worker 0, which alone contributes to variables with another aggregation than sum
            and mean.
    """
    values = [
        np.asarray(v.value, np.float64).ravel() * (is_leader or v.aggregation in REDUCED)
        for v in _metric_variables(model)
    ]
    return np.concatenate(values).tolist() if values else []


def can_write_metrics(model: keras.Model, sums: np.ndarray) -> bool:
    """Return whether the metrics of the model have variables for as many values: not before the first batch."""
    return len(sums) == sum(int(np.prod(variable.shape)) for variable in _metric_variables(model))


def write_metrics(model: keras.Model, sums: np.ndarray, workers: float) -> None:
    """Set the state of a model's metrics to the reduced state of all workers.

    Args:
        model: The model.
        sums: The sums of the values of `read_metrics` over the workers, `float64[k]`.
        workers: The number of workers that contributed.
    """
    at = 0
    for variable in _metric_variables(model):
        size = int(np.prod(variable.shape))
        found = sums[at : at + size] / (workers if variable.aggregation == MEAN else 1)
        variable.assign(found.reshape(variable.shape).astype(variable.dtype))
        at += size


def warn_of_initial_sums(model: keras.Model) -> bool:
    """Print a warning for variables with the aggregation sum that are not 0 after a reset.

    Returns:
        Whether there are any.
    """
    found = [v.path for v in _metric_variables(model) if v.aggregation == "sum" and np.any(np.asarray(v.value))]
    if found:
        print(
            f"downpour: the variable of a metric that is summed over all workers must be 0 initially. "
            f"Received: {', '.join(found)}. For a maximum or minimum, use "
            'aggregation="only_first_replica" in add_variable.',
            file=sys.stderr,
            flush=True,
        )
    return bool(found)


def _metric_variables(model: keras.Model) -> list[Any]:
    return [variable for variable in model.metrics_variables if tf.as_dtype(variable.dtype).is_floating
            or tf.as_dtype(variable.dtype).is_integer]  # fmt: skip
