"""The optimizer that a user's model is compiled with, which must be the job's."""

from __future__ import annotations

from typing import Any

import keras

from downpour.protos import parameter_server_pb2 as pb
from downpour.ps.core.rules.rule import Rule
from downpour.ps.core.rules.update_rules import OPTIMIZERS
from downpour.worker.catalog.compiled import chosen_optimizer
from downpour.worker.catalog.models import MODELS
from downpour.worker.catalog.user_models import ModelError


def compiled_optimizer(spec: str, model: keras.Model, clip_norm: float) -> pb.OptimizerSpec | None:
    """Return the optimizer that a model's author has chosen, for the coordinator to compare; None if there is none.

    Args:
        spec: The name of the model, or `module:function`.
        model: The model.
        clip_norm: The largest norm of a gradient in the job; 0 if gradients are not clipped.

    Raises:
        ModelError: The servers do not implement the optimizer, or one of its arguments.
    """
    optimizer = None if spec in MODELS else chosen_optimizer(model)
    if optimizer is None:
        return None
    name, rule = _row(spec, optimizer)
    config = optimizer.get_config()
    rate = config["learning_rate"]
    if not isinstance(rate, int | float):
        raise ModelError(
            f"{spec}: the learning rate of a compiled optimizer must be a number. Received: {type(rate).__name__} "
            f"{rate!r:.200}. Give the number, and the course of the rate with --schedule."
        )
    hyper = {each: float(config.get(each) or 0.0) for each in rule.hyperparameters}
    _check_arguments(spec, type(optimizer), config, {**hyper, **_options(rule)}, clip_norm)
    return pb.OptimizerSpec(name=name, hyperparameters=hyper)


def _row(spec: str, optimizer: Any) -> tuple[str, Rule]:
    kind = type(optimizer)
    for name, rule in OPTIMIZERS.items():
        if kind is getattr(keras.optimizers, rule.keras, None) and all(
            bool(getattr(optimizer, option)) == is_set for option, is_set in rule.keras_options.items()
        ):
            return name, rule
    raise ModelError(
        f"{spec}: a model must be compiled with an optimizer that the servers implement, "
        f"{', '.join(OPTIMIZERS)}. Received: {kind.__name__}. Choose one of these with --optimizer, and compile the "
        "model without an optimizer."
    )


def _options(rule: Rule) -> dict[str, bool]:
    """Return the arguments of the Keras class that choose a row and are no hyperparameters."""
    return {name: is_set for name, is_set in rule.keras_options.items() if name not in rule.hyperparameters}


def _check_arguments(spec: str, kind: Any, config: dict[str, Any], carried: dict[str, Any], clip_norm: float) -> None:
    """Raise ModelError if an argument differs from that of an optimizer with the carried arguments alone."""
    expected = kind(**{name: value for name, value in carried.items() if name != "momentum" or value}).get_config()
    expected["global_clipnorm"] = clip_norm or None
    for name in sorted(config.keys() - carried.keys() - {"name"}):
        if config[name] != expected.get(name):
            instead = f"Give --clip-norm {config[name] or 0}" if name == "global_clipnorm" else "Leave it out"
            raise ModelError(
                f"{spec}: the optimizer that a model is compiled with must be the job's. Received: {kind.__name__} "
                f"with {name}={config[name]!r}; the servers use {expected.get(name)!r}. {instead}."
            )
