"""Translates a Keras optimizer into the specification that the servers use, and refuses what they do not implement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import Unsupported
from downpour.ps.core.update_rules import OPTIMIZERS

LONGEST_TABLE = 65_536  # versions; a longer table has one entry for several versions, and is linear in between
SUPPORTED = tuple(dict.fromkeys(rule.keras for rule in OPTIMIZERS.values() if rule.keras))  # classes of Keras
REFUSED: tuple[tuple[str, str], ...] = (
    ("use_ema", "the servers keep no averages of the weights: leave use_ema out"),
    ("gradient_accumulation_steps", "every gradient is pushed: use a larger batch_size, or --mode softsync:N"),
    ("amsgrad", "the servers' Adam keeps no maximum: leave amsgrad out"),
    ("centered", "the servers' RMSprop keeps no mean gradient: leave centered out"),
    ("loss_scale_factor", "gradients are float32: leave loss_scale_factor out, or use the policy mixed_bfloat16"),
)


def check_supported(optimizer: Any) -> None:
    """Raise Unsupported if the servers do not implement a Keras optimizer, or one of its arguments."""
    kind = type(optimizer)
    if kind is not getattr(keras.optimizers, kind.__name__, None) or kind.__name__ not in SUPPORTED:
        hint = " The policy mixed_float16 requires one that scales losses: use mixed_bfloat16." if (
            kind.__name__ == "LossScaleOptimizer"
        ) else ""  # fmt: skip
        raise Unsupported(
            f"a distributed optimizer must be one that the servers implement, keras.optimizers.{', '.join(SUPPORTED)}. "
            f"Received: {kind.__module__}.{kind.__name__}.{hint}"
        )
    for name, instead in REFUSED:
        if getattr(optimizer, name, None):
            received = f"Received: {getattr(optimizer, name)!r}"
            raise Unsupported(f"{kind.__name__} must have no {name}. {received}; {instead}.")
    if optimizer.weight_decay and "weight_decay" not in OPTIMIZERS[_row_of(optimizer, kind)].hyperparameters:
        raise Unsupported(
            f"{kind.__name__} must have no weight_decay. Received: {optimizer.weight_decay}; the servers implement it "
            "in AdamW. Use that, or the kernel_regularizer of the layers."
        )
    if getattr(optimizer, "_exclude_from_weight_decay", None):
        raise Unsupported(
            "AdamW must decay all weights. Received: one with exclude_from_weight_decay, which the servers do not "
            "implement. Leave that call out, or use Adam and the kernel_regularizer of the layers."
        )


def slot_names(spec: pb.OptimizerSpec) -> tuple[str, ...]:
    """Return the names of the slots that the servers keep for an optimizer."""
    rule = OPTIMIZERS[spec.name]
    return tuple(rule.slots({**rule.defaults, **spec.hyperparameters}))


def _row_of(optimizer: Any, kind: type) -> str:
    """Return the name of the row of the registry that implements an optimizer of the Keras class `kind`."""
    return next(
        name
        for name, rule in OPTIMIZERS.items()
        if rule.keras == kind.__name__
        and all(bool(getattr(optimizer, option)) == is_set for option, is_set in rule.keras_options.items())
    )


def optimizer_spec(optimizer: Any, keras_class: type, iteration: int, steps: int) -> pb.OptimizerSpec:
    """Return the specification of an optimizer for the servers.

    Args:
        optimizer: An optimizer that `check_supported` accepts.
        keras_class: Its class in Keras.
        iteration: Number of updates that it has made.
        steps: Number of updates to come for which the table of learning rates is exact.
    """
    name = _row_of(optimizer, keras_class)
    hyper = {key: float(getattr(optimizer, key)) for key in OPTIMIZERS[name].hyperparameters if key != "learning_rate"}
    rates = rates_of(optimizer, 0, iteration, steps)
    # The servers divide the table by this rate, so it must not be 0.
    return pb.OptimizerSpec(
        name=name, hyperparameters={**hyper, "learning_rate": max(rates.rates) or 1.0}, learning_rates=rates
    )


def rates_of(optimizer: Any, version: int, iteration: int, steps: int) -> pb.LearningRates:
    """Return the table of learning rates by version, from the optimizer's rates by iteration.

    Args:
        optimizer: A Keras optimizer whose rate is a number or a schedule.
        version: The current version of the servers.
        iteration: The iteration that corresponds to this version.
        steps: Number of updates to come for which the table is exact.
    """
    schedule = optimizer._learning_rate  # the property `learning_rate` is the value at the worker's own iteration
    if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        return pb.LearningRates(versions=[0], rates=[float(tf.convert_to_tensor(optimizer.learning_rate))])
    stride = max(1, -(-steps // LONGEST_TABLE))
    ahead = np.arange(0, max(steps, 1) + stride, stride, dtype=np.int64)
    rates = values_of(schedule, iteration + ahead)
    # Where the rate is constant, only the first and the last entry are needed.
    keep = np.ones(len(ahead), bool)
    keep[1:-1] = (rates[1:-1] != rates[:-2]) | (rates[1:-1] != rates[2:])
    return pb.LearningRates(versions=(version + ahead[keep]).tolist(), rates=rates[keep].tolist())


def values_of(schedule: Callable[[Any], Any], iterations: np.ndarray) -> np.ndarray:
    """Return the values of a schedule at many iterations, `float64[n]`, each computed as in training."""

    @tf.function
    def values(steps: tf.Tensor) -> tf.Tensor:
        one = lambda step: tf.cast(schedule(step), tf.float32)  # noqa: E731
        return tf.map_fn(one, steps, fn_output_signature=tf.float32)

    # A concrete function, for which TensorFlow does not warn of repeated tracing.
    concrete = values.get_concrete_function(tf.TensorSpec([None], tf.int64))
    return concrete(tf.constant(iterations, tf.int64)).numpy().astype(np.float64)
