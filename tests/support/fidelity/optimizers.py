"""Rows of every argument of every optimizer of Keras."""

from __future__ import annotations

import inspect
from typing import Any

import keras

from tests.support.fidelity.row import REFUSED, SAME, Result, Row, compiled, fitted, small_model

# A value other than the default for each argument, and what else the argument needs.
VALUES: dict[str, dict[str, Any]] = {
    "learning_rate": {"learning_rate": 0.02},
    "momentum": {"momentum": 0.7},
    "nesterov": {"nesterov": True, "momentum": 0.8},
    "beta_1": {"beta_1": 0.7},
    "beta_2": {"beta_2": 0.95},
    "beta_2_decay": {"beta_2_decay": -0.6},
    "rho": {"rho": 0.8},
    "epsilon": {"epsilon": 1e-3},
    "epsilon_1": {"epsilon_1": 1e-8},
    "epsilon_2": {"epsilon_2": 1e-2},
    "amsgrad": {"amsgrad": True},
    "centered": {"centered": True},
    "initial_accumulator_value": {"initial_accumulator_value": 0.5},
    "learning_rate_power": {"learning_rate_power": -0.6},
    "l1_regularization_strength": {"l1_regularization_strength": 0.01},
    "l2_regularization_strength": {"l2_regularization_strength": 0.01},
    "l2_shrinkage_regularization_strength": {"l2_shrinkage_regularization_strength": 0.01},
    "beta": {"beta": 0.1},
    "clip_threshold": {"clip_threshold": 0.5},
    "relative_step": {"relative_step": False},
    "warmup_steps": {"warmup_steps": 4},
    "weight_decay": {"weight_decay": 0.05},
    "clipnorm": {"clipnorm": 0.05},
    "clipvalue": {"clipvalue": 0.01},
    "global_clipnorm": {"global_clipnorm": 0.05},
    "use_ema": {"use_ema": True},
    "ema_momentum": {"use_ema": True, "ema_momentum": 0.5},
    "ema_overwrite_frequency": {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 3},
    "loss_scale_factor": {"loss_scale_factor": 8.0},
    "gradient_accumulation_steps": {"gradient_accumulation_steps": 2},
    "name": {"name": "mine"},
    "initial_scale": {"initial_scale": 1024.0},
    "inner_optimizer": {},
    "dynamic_growth_steps": {"dynamic_growth_steps": 3},
    "adam_beta_1": {"adam_beta_1": 0.7},
    "adam_beta_2": {"adam_beta_2": 0.95},
    "adam_weight_decay": {"adam_weight_decay": 0.01},
    "exclude_layers": {"exclude_layers": ["dense"]},
    "exclude_embeddings": {"exclude_embeddings": False},
    "muon_a": {"muon_a": 3.0},
    "muon_b": {"muon_b": -4.0},
    "muon_c": {"muon_c": 2.0},
    "adam_lr_ratio": {"adam_lr_ratio": 0.5},
    "ns_steps": {"ns_steps": 3},
    "rms_rate": {"rms_rate": 0.3},
}
UNSUPPORTED = {
    "Adafactor", "Lamb", "MultiOptimizer", "Muon", "ScheduleFreeAdamW",
}  # fmt: skip
OWN_CLIPPING = "each worker clips its own gradient"


def optimizer_rows() -> list[Row]:
    """Return a row for each argument of each optimizer that Keras exports."""
    rows = []
    for name, kind in sorted(vars(keras.optimizers).items()):
        if not inspect.isclass(kind) or not issubclass(kind, keras.optimizers.Optimizer):
            continue
        if kind is keras.optimizers.Optimizer:
            continue
        arguments = [each for each in inspect.signature(kind.__init__).parameters if each not in ("self", "kwargs")]
        rows += [_row(name, kind, argument) for argument in arguments]
    return rows


def _row(name: str, kind: Any, argument: str) -> Row:
    def run() -> Result:
        given = {} if name == "MultiOptimizer" else dict(VALUES[argument])
        if name == "LossScaleOptimizer":
            given["inner_optimizer"] = keras.optimizers.SGD(0.05)
        if name == "MultiOptimizer":
            given["optimizer_map"] = lambda variable: keras.optimizers.SGD(0.05)
        return fitted(compiled(small_model(), kind(**given)))

    row = f"{name}({argument})"
    if name != "MultiOptimizer" and argument not in VALUES:
        raise LookupError(f"{row} is new in Keras {keras.__version__}: give it a value and a decision")
    if name in UNSUPPORTED:
        return Row("optimizer", row, run, REFUSED, name)
    bsp = OWN_CLIPPING if argument in ("clipnorm", "clipvalue", "global_clipnorm") else SAME
    return Row("optimizer", row, run, bsp=bsp)
