"""What of a Keras optimizer the servers carry out, what the worker does itself, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import Unsupported
from downpour.ps.core.update_rules import OPTIMIZERS

LONGEST_TABLE = 65_536  # versions; beyond, every so-manieth, with straight lines between them


SUPPORTED = tuple(dict.fromkeys(rule.keras for rule in OPTIMIZERS.values() if rule.keras))  # classes of Keras
REFUSED: tuple[tuple[str, str], ...] = (
    ("use_ema", "averages of the weights are not kept on the servers: leave use_ema out"),
    ("gradient_accumulation_steps", "each gradient is pushed: use a larger batch_size, or --mode softsync:N"),
    ("amsgrad", "the servers' Adam keeps no maximum: leave amsgrad out"),
    ("centered", "the servers' RMSprop keeps no mean gradient: leave centered out"),
    ("loss_scale_factor", "gradients are float32: leave loss_scale_factor out, or use the policy mixed_bfloat16"),
)


def check(optimizer: Any) -> None:
    """Raises Unsupported unless the servers can do what a Keras optimizer does."""
    kind = type(optimizer)
    if kind is not getattr(keras.optimizers, kind.__name__, None) or kind.__name__ not in SUPPORTED:
        hint = " The policy mixed_float16 asks for one that scales losses: use mixed_bfloat16." if (
            kind.__name__ == "LossScaleOptimizer"
        ) else ""  # fmt: skip
        raise Unsupported(
            f"a distributed optimizer must be one of keras.optimizers.{', '.join(SUPPORTED)}, which the servers have. "
            f"Received: {kind.__module__}.{kind.__name__}.{hint}"
        )
    for name, instead in REFUSED:
        if getattr(optimizer, name, None):
            received = f"Received: {getattr(optimizer, name)!r}"
            raise Unsupported(f"{kind.__name__} must have no {name}. {received}; {instead}.")
    if optimizer.weight_decay and "weight_decay" not in OPTIMIZERS[_row_of(optimizer, kind)].hyperparameters:
        raise Unsupported(
            f"{kind.__name__} must have no weight_decay. Received: {optimizer.weight_decay}; the servers have it in "
            "AdamW. Use that, or the kernel_regularizer of the layers."
        )
    if getattr(optimizer, "_exclude_from_weight_decay", None):
        raise Unsupported("AdamW must decay all weights: the servers cannot exclude_from_weight_decay.")


def slot_names(carried: pb.OptimizerSpec) -> tuple[str, ...]:
    """The slots that the servers keep for an optimizer."""
    rule = OPTIMIZERS[carried.name]
    return tuple(rule.slots({**rule.defaults, **carried.hyperparameters}))


def _row_of(optimizer: Any, kind: type) -> str:
    """Return the name of the registry's row that does what a Keras optimizer of class `kind` does."""
    return next(
        name
        for name, rule in OPTIMIZERS.items()
        if rule.keras == kind.__name__
        and all(bool(getattr(optimizer, option)) == is_set for option, is_set in rule.keras_options.items())
    )


def carried_of(optimizer: Any, plain: type, iteration: int, steps: int) -> pb.OptimizerSpec:
    """What the servers are told of an optimizer.

    Args:
        optimizer: That has passed `check`.
        plain: Its class in Keras.
        iteration: Updates that it has behind it.
        steps: Updates for which its learning rate must be exact.
    """
    name = _row_of(optimizer, plain)
    hyper = {key: float(getattr(optimizer, key)) for key in OPTIMIZERS[name].hyperparameters if key != "learning_rate"}
    rates = rates_of(optimizer, 0, iteration, steps)
    # A server's η is the factor that a schedule gives times this; it only must not be 0.
    return pb.OptimizerSpec(
        name=name, hyperparameters={**hyper, "learning_rate": max(rates.rates) or 1.0}, learning_rates=rates
    )


def rates_of(optimizer: Any, version: int, iteration: int, steps: int) -> pb.LearningRates:
    """The learning rate by version, as the optimizer has it by iteration.

    Args:
        optimizer: With a number, or a schedule.
        version: Of the servers now.
        iteration: That a single process would be at now.
        steps: Updates to come for which the table is exact.
    """
    schedule = optimizer._learning_rate  # its property gives the value at the worker's own iteration
    if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        return pb.LearningRates(versions=[0], rates=[float(tf.convert_to_tensor(optimizer.learning_rate))])
    stride = max(1, -(-steps // LONGEST_TABLE))
    ahead = np.arange(0, max(steps, 1) + stride, stride, dtype=np.int64)
    rates = values_of(schedule, iteration + ahead)
    # Before `version` nothing is asked for; of equal neighbours on both sides, a line needs only the ends.
    keep = np.ones(len(ahead), bool)
    keep[1:-1] = (rates[1:-1] != rates[:-2]) | (rates[1:-1] != rates[2:])
    return pb.LearningRates(versions=(version + ahead[keep]).tolist(), rates=rates[keep].tolist())


def values_of(schedule: Callable[[Any], Any], iterations: np.ndarray) -> np.ndarray:
    """A schedule at many iterations, `float64[n]`, each computed as in training."""

    @tf.function
    def values(steps: tf.Tensor) -> tf.Tensor:
        one = lambda step: tf.cast(schedule(step), tf.float32)  # noqa: E731
        return tf.map_fn(one, steps, fn_output_signature=tf.float32)

    # Concrete, so that TensorFlow does not count it as a function that is traced again and again.
    concrete = values.get_concrete_function(tf.TensorSpec([None], tf.int64))
    return concrete(tf.constant(iterations, tf.int64)).numpy().astype(np.float64)
