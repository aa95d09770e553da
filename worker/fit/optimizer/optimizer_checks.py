"""Decides whether the servers implement a Keras optimizer, by a list of what they implement.

An optimizer is accepted if a fresh one of its class with the same configuration has equal attributes, but for those
that are known here; and if no method that changes what it does is overridden or replaced.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from downpour.protos.errors import Unsupported
from downpour.ps.core.rules.hyperparameters import resolve
from downpour.worker.fit.optimizer.optimizer_slots import KERAS_AVERAGES
from downpour.worker.fit.optimizer.optimizer_spec import SUPPORTED, hyperparameters_of, keras_class_of, row_of, rules_of
from downpour.worker.fit.optimizer.weight_checks import check_strategy

_NORMS = "It needs norms or products of whole tensors, which the servers cut into slices: use {} instead."
CLASSES: Mapping[str, str] = {  # of Keras, that the servers do not implement: what to do instead
    "Lamb": _NORMS.format("AdamW"),
    "Adafactor": _NORMS.format("RMSprop or Adam"),
    "Muon": _NORMS.format("AdamW or SGD with nesterov"),
    "ScheduleFreeAdamW": "It trains other weights than it evaluates: use AdamW with a schedule instead.",
    "MultiOptimizer": "A model has one distributed optimizer: use one of the others for all its weights.",
}
# Attributes that differ between equal optimizers: their variables, which are carried, and what finds them.
_OWN = {
    "built", "_accumulated_gradients", "_variables", "_trainable_variables", "_trainable_variables_indices", "_tracker",
    "_iterations", "_learning_rate", "_exclude_from_weight_decay_cache", "gradient_op", "kept_slots", "slot_source",
    "kept_counts", "loop_gradient_op", KERAS_AVERAGES, "shown", "dropped", "scales_loss",
    "save_own_variables",
}  # fmt: skip
_EXCLUSION = ("_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern")
# What a subclass may define: how it is built from arguments, and what no training step calls.
_HARMLESS = {"__init__", "get_config", "from_config", "__repr__", "__str__", "__reduce__", "__deepcopy__"}


def check_supported(optimizer: Any) -> None:
    """Check that the servers carry out exactly the updates of a Keras optimizer.

    Raises:
        Unsupported: The servers do not implement the class, or a method of it is overridden or replaced.
        Unsupported: The servers do not implement an argument, or its value.
        Unsupported: An attribute has a value that the configuration of the optimizer does not explain.
    """
    kind = getattr(optimizer, "keras_class", None) or type(optimizer)
    base = keras_class_of(kind)
    if base is None:
        raise Unsupported(
            f"a distributed optimizer must be one that the servers implement, keras.optimizers.{', '.join(SUPPORTED)}. "
            f"Received: {kind.__module__}.{kind.__name__}. {CLASSES.get(kind.__name__, '')}".rstrip()
        )
    check_strategy(optimizer, "an optimizer")
    _check_methods(optimizer, kind, base)
    _check_arguments(optimizer, base)
    _check_attributes(optimizer, kind)


def _check_methods(optimizer: Any, kind: type, base: type) -> None:
    """Check that a class of the script changes no method of Keras, and that none has been replaced."""
    inherited = set(dir(base)) - _HARMLESS - set(dir(object))
    for ancestor in kind.__mro__[: kind.__mro__.index(base)]:
        overridden = sorted(inherited & set(vars(ancestor)) - {"__dict__", "__weakref__", "__module__"})
        if overridden:
            raise Unsupported(
                f"a subclass of {base.__name__} must not override methods whose work the servers do. Received: "
                f"{kind.__name__} with its own {overridden[0]}. Remove the method, or change the gradients in the "
                "model's train_step."
            )
    for name in sorted(inherited):
        method = inspect.getattr_static(base, name)
        if inspect.isfunction(method) and not method.__module__.startswith(("keras.", "tensorflow.")):
            raise _replaced(base.__name__, name)
    plain: Any = base
    for name in sorted(inherited & set(vars(optimizer)) - set(vars(plain(name="plain"))) - _OWN):
        raise _replaced(kind.__name__, name)


def _replaced(owner: str, name: str) -> Unsupported:
    return Unsupported(
        f"an optimizer must have the methods of its class. Received: {owner} whose {name} has been replaced, which "
        "the servers cannot carry out. Leave it as it is, or change the gradients in the model's train_step."
    )


def _check_arguments(optimizer: Any, base: type) -> None:
    if optimizer.use_ema and optimizer.gradient_accumulation_steps:
        raise Unsupported(
            f"{base.__name__} must have either use_ema or gradient_accumulation_steps, because Keras averages the "
            "weights after every batch and the servers after every update. Received: both. Leave one out."
        )
    name = row_of(optimizer, base)
    try:
        resolve(name, hyperparameters_of(optimizer, base))
    except (TypeError, ValueError) as error:
        raise Unsupported(f"{base.__name__} must have arguments that the servers take: {error}") from error


def _check_attributes(optimizer: Any, kind: Any) -> None:
    """Compare an optimizer with a fresh one of the same configuration."""
    try:
        fresh = kind.from_config(config_of(optimizer))
    except Exception as error:
        raise Unsupported(
            f"an optimizer must be defined by its get_config. Received: {kind.__name__}, which from_config does not "
            f"build again ({type(error).__name__}: {error}). Give it a get_config with the arguments of its __init__."
        ) from error
    carried = set().union(*([*rule.keras_slots.values(), *rule.keras_scalars] for rule in rules_of(kind)))
    known = {*_OWN, *_EXCLUSION, *carried}
    ours, expected = vars(optimizer), vars(fresh)
    for name in sorted(set(ours) | set(expected)):
        if name in known or name.startswith("_self_"):
            continue
        if name not in ours or name not in expected or not _equal(ours[name], expected[name]):
            received = f"{name} = {ours[name]!r}" if name in ours else f"no {name}"
            raise Unsupported(
                f"an optimizer must be defined by the arguments of {kind.__name__}. Received: one with {received}, "
                "which these do not explain and the servers do not know. Do not set the attribute, or pass it as an "
                "argument."
            )


def config_of(optimizer: Any) -> dict[str, Any]:
    """Return the configuration of an optimizer with a number as the learning rate.

    Functions and schedules of the script need not be serializable, and are carried as values.
    """
    rate = optimizer._learning_rate
    object.__setattr__(optimizer, "_learning_rate", None)  # past Keras, which tracks variables
    try:
        config: dict[str, Any] = optimizer.get_config()
    finally:
        object.__setattr__(optimizer, "_learning_rate", rate)
    if isinstance(rate, keras.Variable):
        config["learning_rate"] = float(rate.numpy())
    return config


def _equal(one: Any, other: Any) -> bool:
    if one is other:
        return True
    try:
        return type(one) is type(other) and bool(np.all(one == other))
    except Exception:
        return False
