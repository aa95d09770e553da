"""The registry of optimizers: update rules on a flat vector, equal to the Keras optimizers element by element.

Adding an optimizer is adding a function to `rule_equations` and a row to `OPTIMIZERS`: flags, checks, the translation
from the Keras class and the slots of scripts are generated from the row. An update rule sees one block of the weights
at a time, so that those that need a norm of a whole tensor (Lamb, Adafactor, Muon) cannot be rows.
"""

from __future__ import annotations

from dataclasses import replace

from downpour.ps.core.rules import rule_equations as equations
from downpour.ps.core.rules.rule import Hyperparameter, Rule, float32

_ABOVE_0, _AT_LEAST_0, _AT_MOST_0, _FRACTION = {"gt": 0}, {"ge": 0}, {"le": 0}, {"ge": 0, "lt": 1}


def _common(learning_rate: float, weight_decay: float = 0.0) -> dict[str, Hyperparameter]:
    """Return the hyperparameters that every optimizer takes."""
    return {
        "learning_rate": Hyperparameter(learning_rate, _ABOVE_0, "Step size η."),
        "weight_decay": Hyperparameter(
            weight_decay, _AT_LEAST_0, "Fraction of the weights, times η, that an update removes."
        ),
    }


_EPSILON = {"epsilon": Hyperparameter(1e-7, _ABOVE_0, "Small constant that keeps the divisor above 0.")}
_MOMENTUM = {"momentum": Hyperparameter(0.9, _FRACTION, "Decay of the velocity.")}
_ACCUMULATOR = {"initial_accumulator_value": Hyperparameter(0.1, _AT_LEAST_0, "Initial value of the sum of squares.")}
_BETAS = {
    "beta_1": Hyperparameter(0.9, _FRACTION, "Decay of the mean of the gradients."),
    "beta_2": Hyperparameter(0.999, _FRACTION, "Decay of the mean of the squared gradients."),
}
_ADAM = _common(0.001) | _BETAS | _EPSILON
_RHO = "Decay of the mean of the squared gradients."

_SGD = Rule(
    doc="plain gradient descent",
    block=equations.sgd,
    scalars=lambda h, t: float32(h["learning_rate"]),
    slots=lambda h: {},
    hyperparameters=_common(0.01),
    keras="SGD",
    keras_options={"momentum": False},
    linear=True,
)
# Keras has no classes for momentum and Nesterov's momentum: they are settings of SGD, with a default momentum of 0.
_WITH_MOMENTUM = replace(
    _SGD,
    doc="gradient descent with momentum",
    block=equations.momentum,
    scalars=lambda h, t: float32(h["learning_rate"], h["momentum"]),
    slots=lambda h: {"momentum": 0.0},
    hyperparameters=_common(0.01) | _MOMENTUM,
    keras_options={"momentum": True, "nesterov": False},
    keras_slots={"momentum": "momentums"},
)
_RMSPROP = Rule(
    doc="gradients divided by the root of the moving average of their squares",
    block=equations.rmsprop,
    scalars=lambda h, t: float32(h["learning_rate"], h["momentum"], h["rho"], 1 - h["rho"], h["epsilon"]),
    slots=lambda h: {"velocity": 0.0} | ({"momentum": 0.0} if h["momentum"] else {}),
    hyperparameters=_common(0.001)
    | {
        "rho": Hyperparameter(0.9, _FRACTION, _RHO),
        "momentum": Hyperparameter(0.0, _FRACTION, "Decay of the velocity."),
    }
    | _EPSILON,
    keras="RMSprop",
    keras_options={"centered": False},
    keras_slots={"velocity": "_velocities", "momentum": "_momentums"},
)
_ADAM_RULE = Rule(
    doc="moving average of gradients divided by the root of that of their squares, with bias correction",
    block=equations.adam,
    scalars=equations.adam_scalars,
    slots=lambda h: {"momentum": 0.0, "velocity": 0.0},
    hyperparameters=_ADAM,
    keras="Adam",
    keras_options={"amsgrad": False},
    keras_slots={"momentum": "_momentums", "velocity": "_velocities"},
    counts=True,
)
_AMSGRAD = replace(
    _ADAM_RULE,
    doc="adam with the largest moving average so far in the divisor",
    slots=lambda h: {"momentum": 0.0, "velocity": 0.0, "velocity_hat": 0.0},
    keras_options={"amsgrad": True},
    keras_slots={**_ADAM_RULE.keras_slots, "velocity_hat": "_velocity_hats"},
)
_DECAYED = _ADAM | _common(0.001, weight_decay=0.004)

OPTIMIZERS: dict[str, Rule] = {
    "sgd": _SGD,
    "momentum": _WITH_MOMENTUM,
    "nesterov": replace(
        _WITH_MOMENTUM,
        doc="gradient descent with Nesterov momentum",
        block=equations.nesterov,
        keras_options={"momentum": True, "nesterov": True},
    ),
    "adagrad": Rule(
        doc="gradients divided by the root of the sum of their squares",
        block=equations.adagrad,
        scalars=lambda h, t: float32(h["learning_rate"], h["epsilon"]),
        slots=lambda h: {"accumulator": h["initial_accumulator_value"]},
        hyperparameters=_common(0.001) | _ACCUMULATOR | _EPSILON,
        keras="Adagrad",
        keras_slots={"accumulator": "_accumulators"},
    ),
    "rmsprop": _RMSPROP,
    "centered_rmsprop": replace(
        _RMSPROP,
        doc="gradients divided by the root of the moving estimate of their variance",
        block=equations.centered_rmsprop,
        slots=lambda h: {"velocity": 0.0, "average_gradient": 0.0} | ({"momentum": 0.0} if h["momentum"] else {}),
        keras_options={"centered": True},
        keras_slots={**_RMSPROP.keras_slots, "average_gradient": "_average_gradients"},
    ),
    "adam": _ADAM_RULE,
    "amsgrad": _AMSGRAD,
    "adamw": replace(_ADAM_RULE, doc="adam with decoupled weight decay", hyperparameters=_DECAYED, keras="AdamW"),
    "amsgradw": replace(_AMSGRAD, doc="amsgrad with decoupled weight decay", hyperparameters=_DECAYED, keras="AdamW"),
    "nadam": replace(
        _ADAM_RULE,
        doc="adam with Nesterov momentum",
        block=equations.nadam,
        scalars=equations.nadam_scalars,
        keras="Nadam",
        keras_options={},
        keras_scalars={"_u_product": equations.nadam_product},
    ),
    "adamax": replace(
        _ADAM_RULE,
        doc="moving average of gradients divided by a decaying maximum of their magnitudes",
        block=equations.adamax,
        scalars=equations.adamax_scalars,
        slots=lambda h: {"momentum": 0.0, "norm": 0.0},
        keras="Adamax",
        keras_options={},
        keras_slots={"momentum": "_m", "norm": "_u"},
    ),
    "adadelta": Rule(
        doc="gradients scaled by the ratio of the moving averages of steps and of gradients",
        block=equations.adadelta,
        scalars=lambda h, t: float32(h["learning_rate"], h["rho"], 1 - h["rho"], h["epsilon"]),
        slots=lambda h: {"accumulated_grad": 0.0, "accumulated_delta_var": 0.0},
        hyperparameters=_common(0.001) | {"rho": Hyperparameter(0.95, _FRACTION, _RHO)} | _EPSILON,
        keras="Adadelta",
        keras_slots={
            "accumulated_grad": "_accumulated_grads",
            "accumulated_delta_var": "_accumulated_delta_vars",
        },
    ),
    "ftrl": Rule(
        doc="follow the regularized leader, with L1 and L2 regularization",
        block=equations.ftrl,
        scalars=equations.ftrl_scalars,
        slots=lambda h: {"accumulator": h["initial_accumulator_value"], "linear": 0.0},
        hyperparameters=_common(0.001)
        | _ACCUMULATOR
        | {
            "learning_rate_power": Hyperparameter(-0.5, _AT_MOST_0, "Power of the sum of squares in the step size."),
            "l1_regularization_strength": Hyperparameter(0.0, _AT_LEAST_0, "Strength of the L1 regularization."),
            "l2_regularization_strength": Hyperparameter(0.0, _AT_LEAST_0, "Strength of the L2 regularization."),
            "l2_shrinkage_regularization_strength": Hyperparameter(
                0.0, _AT_LEAST_0, "Strength of an L2 regularization of the gradients only."
            ),
            "beta": Hyperparameter(0.0, _AT_LEAST_0, "Added to the L2 regularization, divided by 2η."),
        },
        keras="Ftrl",
        keras_slots={"accumulator": "_accumulators", "linear": "_linears"},
    ),
    "lion": Rule(
        doc="steps of one size by the sign of a moving average of gradients",
        block=equations.lion,
        scalars=equations.lion_scalars,
        slots=lambda h: {"momentum": 0.0},
        hyperparameters=_common(0.001)
        | {
            "beta_1": Hyperparameter(0.9, {"gt": 0, "lt": 1}, "Decay of the mean of the gradients."),
            "beta_2": Hyperparameter(0.99, _FRACTION, "Decay of the mean of the squared gradients."),
        },
        keras="Lion",
        keras_slots={"momentum": "_momentums"},
    ),
}
