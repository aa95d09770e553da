"""What a model's metrics have gathered, as numbers that add up over workers."""

from __future__ import annotations

import sys
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


def tell_no_sums(model: keras.Model) -> bool:
    """Names variables that would be added up although they are no sums: just reset, they are not 0.

    Returns:
        Whether there are any.
    """
    found = [v.path for v in _metric_variables(model) if v.aggregation == "sum" and np.any(np.asarray(v.value))]
    if found:
        print(
            f"downpour: what a metric adds up over all workers must begin at 0. Received: {', '.join(found)}. Where it "
            'keeps a maximum or minimum, say aggregation="only_first_replica" in add_variable.',
            file=sys.stderr,
            flush=True,
        )
    return bool(found)


def _metric_variables(model: keras.Model) -> list[Any]:
    return [variable for variable in model.metrics_variables if tf.as_dtype(variable.dtype).is_floating
            or tf.as_dtype(variable.dtype).is_integer]  # fmt: skip
