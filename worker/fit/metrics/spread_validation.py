"""The validation of an epoch by all workers (`--spread-validation`).

At the barrier after the batches of an epoch all workers have the same weights, and each evaluates its part of the data.
The sums over the workers are those of the metrics' variables, not of their results: the logs are those of one process
that evaluates all batches. The part of a worker that has died is evaluated by worker 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.utils.python_utils import pythonify_logs

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import Unsupported
from downpour.worker.fit.cluster.script_worker import ScriptWorker
from downpour.worker.fit.metrics.metric_reduction import read_metrics, write_metrics
from downpour.worker.fit.metrics.validation_parts import OMIT, ValidationParts

METHODS = ("test_step", "compute_metrics", "make_test_function", "evaluate")  # of a model, that make the logs
PREFIX = "val_"  # of the logs of a validation


def validation_of(logs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the logs of the validation among those of an epoch, with the names that an evaluation gives them."""
    return {name.removeprefix(PREFIX): value for name, value in logs.items() if name.startswith(PREFIX)}


def spread_validation(model: keras.Model, given: Mapping[str, Any], member: ScriptWorker) -> ValidationParts | None:
    """Return the parts of the validation data in the arguments of `fit`; None if worker 0 evaluates all of them.

    Raises:
        Unsupported: The data cannot be divided, or the results of their parts cannot be combined.
    """
    if not member.spreads_validation or given["validation_data"] is None:
        return None
    size = given["validation_batch_size"] or given["batch_size"]
    steps, frequency = given["validation_steps"], given.get("validation_freq", 1)
    parts = ValidationParts(given["validation_data"], size, steps, member.size, frequency)
    _check_sums(model)
    return parts


def sum_validation(model: keras.Model, parts: ValidationParts, reply: pb.BarrierReply, workers: int) -> dict[str, Any]:
    """Return the logs of all parts, as worker 0, and give the metrics of the model their state.

    Args:
        model: The model.
        parts: The parts of the validation data.
        reply: The sums of the states of the metrics, and the workers that have sent them.
        workers: The number of workers that the data are divided among.
    """
    sums: Any = np.array(reply.validation) if reply.validation else 0.0  # none at the end of a call that is complete
    for rank in sorted(set(range(workers)) - set(reply.validated)):
        x, y, weight = parts.arguments(rank)
        if x is not None:
            model.evaluate(x, y, sample_weight=weight, batch_size=parts.batch_size, verbose=0, return_dict=True)
            sums = sums + np.array(read_metrics(model, is_leader=True))
    write_metrics(model, sums, workers=1)
    logs: dict[str, Any] = pythonify_logs(model.get_metrics_result())
    return logs


def check_evaluated(model: keras.Model, has_assigned: bool) -> None:
    """Check that this worker has evaluated its whole part, with the weights of all.

    Args:
        model: The model, after its evaluation.
        has_assigned: Whether a hook has assigned weights since the end of the batches.

    Raises:
        Unsupported: A hook of a callback has changed the evaluation, or a metric is no sum.
    """
    received = "one that has assigned weights" if has_assigned else "one that has set model.stop_evaluating"
    if has_assigned or getattr(model, "stop_evaluating", False):
        raise Unsupported(
            "with --spread-validation hooks of callbacks must leave the validation as it is, because they are called "
            f"for the batches of each worker's part alone. Received: {received}. {OMIT}"
        )
    _check_metrics([(metric, v) for metric in model.metrics for v in metric.variables if not _is_sum(v)])


def other_values(paths: Sequence[str]) -> Unsupported:
    """Return the error of a worker whose model had other values than that of worker 0 while it evaluated its part."""
    return Unsupported(
        "with --spread-validation all variables of the model must be equal on all workers after the batches of an "
        f"epoch. Received: other values than on worker 0 of {', '.join(paths)}. {OMIT}"
    )


def _check_sums(model: keras.Model) -> None:
    """Raise Unsupported unless the state of every metric is a sum over the samples."""
    base = keras.Model
    own = [name for name in METHODS if name in vars(model) or getattr(type(model), name) is not getattr(base, name)]
    if own:
        raise Unsupported(
            "with --spread-validation the logs of a validation must be those of the compiled loss and metrics, whose "
            f"sums are combined. Received: a model with {own[0]} of its own, {type(model).__name__}. {OMIT}"
        )
    model.reset_metrics()  # as `fit` does next
    compiled = getattr(model, "_compile_metrics", None)
    given = keras.tree.flatten([getattr(compiled, name, None) for name in ("_user_metrics", "_user_weighted_metrics")])
    metrics = [*model.metrics, *(metric for metric in given if isinstance(metric, keras.metrics.Metric))]
    variables = [(metric, variable) for metric in metrics for variable in metric.variables]
    _check_metrics([(metric, v) for metric, v in variables if not _is_sum(v) or np.any(np.asarray(v.value))])


def _check_metrics(wrong: Sequence[tuple[Any, Any]]) -> None:
    if wrong:
        raise Unsupported(
            "with --spread-validation every metric must be computed from sums over the samples that are 0 initially "
            f'(numbers with aggregation="sum"). Received: {wrong[0][0].name}, which is not. {OMIT}'
        )


def _is_sum(variable: Any) -> bool:
    dtype = tf.as_dtype(variable.dtype)
    return variable.aggregation == "sum" and bool(dtype.is_floating or dtype.is_integer)
