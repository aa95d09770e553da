"""Translates a Keras optimizer into the specification that the servers use: its rule, hyperparameters and rates."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from downpour.protos import parameter_server_pb2 as pb
from downpour.ps.core.rules.rule import AVERAGE, Rule
from downpour.ps.core.rules.update_rules import OPTIMIZERS

LONGEST_TABLE = 65_536  # updates; a longer table has one entry for several updates, and is linear in between
SUPPORTED = tuple(dict.fromkeys(rule.keras for rule in OPTIMIZERS.values() if rule.keras))  # classes of Keras


def keras_class_of(kind: type) -> type | None:
    """Return the class of Keras that the servers implement and that a class is or inherits from, or None."""
    supported = {getattr(keras.optimizers, name) for name in SUPPORTED}
    return next((ancestor for ancestor in kind.__mro__ if ancestor in supported), None)


def initial_slots(spec: pb.OptimizerSpec) -> dict[str, float]:
    """Return the names and initial values of the slots that the servers keep for an optimizer."""
    rule = OPTIMIZERS[spec.name]
    own = rule.slots({**rule.defaults, **spec.hyperparameters})
    return {**own, AVERAGE: 0.0} if spec.HasField("ema_momentum") else own


def row_of(optimizer: Any, keras_class: type) -> str:
    """Return the name of the row of the registry that implements an optimizer of a class of Keras."""
    return next(
        name
        for name, rule in OPTIMIZERS.items()
        if rule.keras == keras_class.__name__
        and all(bool(getattr(optimizer, option)) == is_set for option, is_set in rule.keras_options.items())
    )


def rule_of(optimizer: Any, kind: type) -> Rule:
    """Return the row of the registry that implements an optimizer, whose class is `kind` or inherits from it."""
    keras_class = keras_class_of(kind)
    assert keras_class is not None
    return OPTIMIZERS[row_of(optimizer, keras_class)]


def rules_of(kind: type) -> list[Rule]:
    """Return the rows of the registry that implement a class, one for each of its options."""
    keras_class = keras_class_of(kind)
    return [rule for rule in OPTIMIZERS.values() if keras_class is not None and rule.keras == keras_class.__name__]


def hyperparameters_of(optimizer: Any, keras_class: type) -> dict[str, float]:
    """Return the hyperparameters of an optimizer but for its learning rate, which changes.

    Raises:
        TypeError: A hyperparameter is not a number, such as a variable, which could change.
    """
    hyper = {}
    for name in rule_of(optimizer, keras_class).hyperparameters.keys() - {"learning_rate"}:
        value = getattr(optimizer, name)
        if name == "weight_decay" and value is None:
            value = 0.0
        if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
            raise TypeError(f"{name} must be a number. Received: {value!r}. Pass a float.")
        hyper[name] = float(value)
    return hyper


def optimizer_spec(
    optimizer: Any, keras_class: type, iteration: int, steps: int, gradients: int | None = None
) -> pb.OptimizerSpec:
    """Return the specification of an optimizer for the servers.

    Args:
        optimizer: An optimizer that `check_supported` accepts.
        keras_class: The optimizer's class in Keras, or a class of the script that inherits from it.
        iteration: The number of updates that it has made.
        steps: The number of updates to come for which the table of learning rates is exact.
        gradients: The number of gradients that its updates used (default: one each).
    """
    base = keras_class_of(keras_class)
    assert base is not None
    rates = rates_of(optimizer, iteration, steps)
    # It stands for the table in reports and warnings, and no optimizer takes a rate of 0.
    hyper = {**hyperparameters_of(optimizer, base), "learning_rate": max(rates.rates) or 1.0}
    name = row_of(optimizer, base)
    counts = {"updates": iteration, "gradients": iteration if gradients is None else gradients}
    spec = pb.OptimizerSpec(name=name, hyperparameters=hyper, learning_rates=rates, **counts)
    if optimizer.use_ema:
        spec.ema_momentum = optimizer.ema_momentum
        spec.ema_overwrite_frequency = optimizer.ema_overwrite_frequency or 0
    return spec


def updates_of(optimizer: Any) -> int:
    """Return the number of updates that an optimizer has made; without accumulation, Keras counts the same."""
    return int(optimizer._iterations.numpy()) // (optimizer.gradient_accumulation_steps or 1)


def has_fixed_rate(optimizer: Any) -> bool:
    """Return whether the learning rate is a number, which only assignments change, not a schedule or function."""
    return isinstance(optimizer._learning_rate, keras.Variable)


def rates_of(optimizer: Any, iteration: int, steps: int) -> pb.LearningRates:
    """Return the table of the learning rates of an optimizer by the number of its updates.

    Args:
        optimizer: A Keras optimizer whose rate is a number, a schedule, or a function.
        iteration: The number of updates that it has made.
        steps: The number of updates to come for which the table is exact.
    """
    if has_fixed_rate(optimizer):
        return pb.LearningRates(updates=[0], rates=[float(tf.convert_to_tensor(optimizer.learning_rate))])
    stride = max(1, -(-steps // LONGEST_TABLE))
    ahead = np.arange(0, max(steps, 1) + stride, stride, dtype=np.int64)
    batches = optimizer.gradient_accumulation_steps or 1  # an update is made in the last of them
    rates = values_of(optimizer, (iteration + ahead) * batches + batches - 1)
    # Where the rate is constant, only the first and the last entry are needed.
    keep = np.ones(len(ahead), bool)
    keep[1:-1] = (rates[1:-1] != rates[:-2]) | (rates[1:-1] != rates[2:])
    return pb.LearningRates(updates=(iteration + ahead[keep]).tolist(), rates=rates[keep].tolist())


def values_of(optimizer: Any, iterations: np.ndarray) -> np.ndarray:
    """Return the learning rates of an optimizer at many iterations, `float64[n]`.

    Each is what Keras uses when the optimizer has made that many updates: a schedule receives the variable that counts
    them, and a function may read it. The variable has its value again afterwards.
    """
    count, now = optimizer._iterations, int(optimizer._iterations.numpy())

    def rate_at(step: Any) -> tf.Tensor:
        count.assign(step)
        return tf.cast(optimizer._get_current_learning_rate(), tf.float32)

    @tf.function
    def values(steps: tf.Tensor) -> tf.Tensor:
        return tf.map_fn(rate_at, steps, fn_output_signature=tf.float32, parallel_iterations=1)

    try:
        # A concrete function, for which TensorFlow does not warn of repeated tracing.
        concrete = values.get_concrete_function(tf.TensorSpec([None], tf.int64))
        return concrete(tf.constant(iterations, tf.int64)).numpy().astype(np.float64)
    except Exception:
        # Code that reads values with `if` or `float` cannot be traced; with run_eagerly=True, Keras runs it.
        return np.array([float(rate_at(int(step))) for step in iterations])
    finally:
        count.assign(now)
