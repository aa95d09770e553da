"""The registry of optimizers: update rules on a flat vector, equal to the Keras optimizers element by element.

Every rule states its equations for one block of the vector, in Keras's order of operations and with scalars in
float32, so that results agree to the last bit wherever IEEE 754 fixes them. `core.optimizer` iterates over the blocks.

Adding an optimizer is adding a function and a row of `OPTIMIZERS`: flags, checks, the translation from the Keras
class and the slots of scripts are generated from the row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
Scalar = NDArray[np.float32]  # 0-d: a ufunc takes it 0.25 µs faster than a `np.float32`
Slots = tuple[Vector, ...]
Scalars = tuple[Scalar, ...]
Settings = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """A hyperparameter of an optimizer, under the name that Keras gives it.

    Attributes:
        default: The default of the Keras optimizer.
        bounds: What must hold, as pydantic writes it: `gt` (above), `ge` (at least), `lt` (below).
        doc: The sentence of the command line's help, without the names of the optimizers.
    """

    default: float
    bounds: Mapping[str, Any]
    doc: str


_ABOVE_0, _AT_LEAST_0, _FRACTION = {"gt": 0}, {"ge": 0}, {"ge": 0, "lt": 1}


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of the registry of optimizers. Settings, checks and the translation from Keras are generated from it.

    Attributes:
        doc: A phrase that describes the optimizer in the command line's help.
        block: The equations on one block: reads weights `w` and gradient `g`, writes the new weights to `out`
            (which until then is scratch memory, like `s`) and updates the slots in place.
        scalars: Computes the scalars that `block` receives from the settings and the number of the update, from 1.
        slots: Maps the settings to the names and initial values of the optimizer's slots, one value per weight.
        hyperparameters: The hyperparameters that the optimizer takes.
        keras: The name of the equivalent class in `keras.optimizers`.
        keras_options: Attributes of that class that select this row, and whether each must be set (true) or not.
        counts: Whether the scalars depend on the number of the update.
        linear: Whether the step is proportional to the gradients, so that the stability limits of SGD apply.
    """

    doc: str
    block: Callable[[Vector, Vector, Vector, Vector, Slots, Scalars], None]
    scalars: Callable[[Settings, int], Scalars]
    slots: Callable[[Settings], dict[str, float]]
    hyperparameters: Mapping[str, Hyperparameter]
    keras: str = ""
    keras_options: Mapping[str, bool] = field(default_factory=dict)
    counts: bool = False
    linear: bool = False

    @property
    def defaults(self) -> dict[str, float]:
        """The default value of every hyperparameter."""
        return {name: each.default for name, each in self.hyperparameters.items()}

    def bytes_per_weight(self, settings: Settings) -> int:
        """Return how many bytes an update must move per weight: it reads w and g, writes w', reads and writes slots."""
        return 4 * (3 + 2 * len(self.slots(settings)))


def _sgd(w: Vector, g: Vector, out: Vector, s: Vector, slots: Slots, scalars: Scalars) -> None:
    """Gradient descent: w' = w − gη."""
    (η,) = scalars
    np.multiply(g, η, out)
    np.subtract(w, out, out)


def _momentum(w: Vector, g: Vector, out: Vector, s: Vector, slots: Slots, scalars: Scalars) -> None:
    """Momentum (Polyak 1964): m' = mμ − gη, w' = w + m'."""
    (m,), (η, μ) = slots, scalars
    np.multiply(g, η, out)
    np.multiply(m, μ, m)
    np.subtract(m, out, m)
    np.add(w, m, out)


def _nesterov(w: Vector, g: Vector, out: Vector, s: Vector, slots: Slots, scalars: Scalars) -> None:
    """Nesterov momentum (Nesterov 1983) in the form of Sutskever et al. 2013.

    m' = mμ − gη, w' = w + (m'μ − gη).
    """
    (m,), (η, μ) = slots, scalars
    np.multiply(g, η, out)
    np.multiply(m, μ, m)
    np.subtract(m, out, m)
    np.multiply(m, μ, s)
    np.subtract(s, out, s)
    np.add(w, s, out)


def _adagrad(w: Vector, g: Vector, out: Vector, s: Vector, slots: Slots, scalars: Scalars) -> None:
    """Adagrad (Duchi, Hazan, Singer 2011), the optimizer of Downpour SGD: a' = a + g², w' = w − gη / √(a' + ε)."""
    (a,), (η, ε) = slots, scalars
    np.multiply(g, g, s)
    np.add(a, s, a)
    np.add(a, ε, s)
    np.sqrt(s, out)
    np.multiply(g, η, s)
    np.divide(s, out, out)
    np.subtract(w, out, out)


def _rmsprop(w: Vector, g: Vector, out: Vector, s: Vector, slots: Slots, scalars: Scalars) -> None:
    """RMSprop (Hinton 2012): v' = ρv + (1−ρ)g², d = gη / √(v' + ε), w' = w − d.

    With a momentum above 0, for which there is a slot: m' = μm + d, w' = w − m'.
    """
    (v, *momentum), (η, μ, ρ, one_minus_ρ, ε) = slots, scalars
    np.multiply(g, g, s)
    np.multiply(s, one_minus_ρ, s)
    np.multiply(v, ρ, v)
    np.add(v, s, v)
    np.add(v, ε, s)
    np.sqrt(s, out)
    np.multiply(g, η, s)
    np.divide(s, out, out)
    d = out
    for m in momentum:
        np.multiply(m, μ, m)
        np.add(m, out, m)
        d = m
    np.subtract(w, d, out)


def _adam(w: Vector, g: Vector, out: Vector, s: Vector, slots: Slots, scalars: Scalars) -> None:
    """Adam (Kingma, Ba 2015) with ε̂: m' = m + (g−m)(1−β₁), v' = v + (g²−v)(1−β₂), w' = w − m'α / (√v' + ε)."""
    _adam_step(g, out, s, slots, scalars)
    np.subtract(w, s, out)


def _adamw(w: Vector, g: Vector, out: Vector, s: Vector, slots: Slots, scalars: Scalars) -> None:
    """AdamW (Loshchilov, Hutter 2019): the step of Adam from w − w(λη); Keras multiplies by λ and by η in turn."""
    *adam, λη = scalars
    _adam_step(g, out, s, slots, tuple(adam))
    np.multiply(w, λη, out)
    np.subtract(w, out, out)
    np.subtract(out, s, out)


def _adam_step(g: Vector, out: Vector, s: Vector, slots: Slots, scalars: Scalars) -> None:
    """Write m'α / (√v' + ε) to `s`."""
    (m, v), (α, one_minus_β1, one_minus_β2, ε) = slots, scalars
    # `out` is first written by the slowest operation, the square root, which hides that its cache lines are
    # fetched before they are written; so in the other rules that have a root.
    np.multiply(g, g, s)
    np.subtract(s, v, s)
    np.multiply(s, one_minus_β2, s)
    np.add(v, s, v)
    np.subtract(g, m, s)
    np.multiply(s, one_minus_β1, s)
    np.add(m, s, m)
    np.multiply(m, α, s)
    np.sqrt(v, out)
    np.add(out, ε, out)
    np.divide(s, out, s)


def float32(*values: float | np.float32) -> Scalars:
    """Return each value as a 0-dimensional float32 array, the form that rules take."""
    return tuple([np.array(value, np.float32) for value in values])


def _adam_scalars(h: Settings, t: int) -> Scalars:
    """Return the bias-corrected step size α = η √(1 − β₂ᵗ) / (1 − β₁ᵗ), 1−β₁, 1−β₂ and ε."""
    η, β1, β2 = np.float32(h["learning_rate"]), np.float32(h["beta_1"]), np.float32(h["beta_2"])
    # Powers of the rounded β, rounded once, are TensorFlow's; a bit more or less here is 6e-5 of the first α.
    β1_t, β2_t = np.float32(float(β1) ** t), np.float32(float(β2) ** t)
    α = η * np.sqrt(np.float32(1) - β2_t) / (np.float32(1) - β1_t)
    return float32(α, 1 - h["beta_1"], 1 - h["beta_2"], h["epsilon"])


def _learning_rate(default: float) -> dict[str, Hyperparameter]:
    return {"learning_rate": Hyperparameter(default, _ABOVE_0, "Step size η.")}


_EPSILON = {"epsilon": Hyperparameter(1e-7, _ABOVE_0, "Small constant that keeps the divisor above 0.")}
_MOMENTUM = {"momentum": Hyperparameter(0.9, _FRACTION, "Decay of the velocity.")}
_ADAM = {
    **_learning_rate(0.001),
    "beta_1": Hyperparameter(0.9, _FRACTION, "Decay of the mean of the gradients."),
    "beta_2": Hyperparameter(0.999, _FRACTION, "Decay of the mean of the squared gradients."),
    **_EPSILON,
}

# Keras has no classes for momentum and Nesterov's momentum: they are settings of SGD, with a default momentum of 0.
OPTIMIZERS: dict[str, Rule] = {
    "sgd": Rule(
        doc="plain gradient descent",
        block=_sgd,
        scalars=lambda h, t: float32(h["learning_rate"]),
        slots=lambda h: {},
        hyperparameters=_learning_rate(0.01),
        keras="SGD",
        keras_options={"momentum": False},
        linear=True,
    ),
    "momentum": Rule(
        doc="gradient descent with momentum",
        block=_momentum,
        scalars=lambda h, t: float32(h["learning_rate"], h["momentum"]),
        slots=lambda h: {"momentum": 0.0},
        hyperparameters=_learning_rate(0.01) | _MOMENTUM,
        keras="SGD",
        keras_options={"momentum": True, "nesterov": False},
        linear=True,
    ),
    "nesterov": Rule(
        doc="gradient descent with Nesterov momentum",
        block=_nesterov,
        scalars=lambda h, t: float32(h["learning_rate"], h["momentum"]),
        slots=lambda h: {"momentum": 0.0},
        hyperparameters=_learning_rate(0.01) | _MOMENTUM,
        keras="SGD",
        keras_options={"momentum": True, "nesterov": True},
        linear=True,
    ),
    "adagrad": Rule(
        doc="gradients divided by the root of the sum of their squares",
        block=_adagrad,
        scalars=lambda h, t: float32(h["learning_rate"], h["epsilon"]),
        slots=lambda h: {"accumulator": h["initial_accumulator_value"]},
        hyperparameters=_learning_rate(0.001)
        | {"initial_accumulator_value": Hyperparameter(0.1, _AT_LEAST_0, "Initial value of the sum of squares.")}
        | _EPSILON,
        keras="Adagrad",
    ),
    "rmsprop": Rule(
        doc="gradients divided by the root of the moving average of their squares",
        block=_rmsprop,
        scalars=lambda h, t: float32(h["learning_rate"], h["momentum"], h["rho"], 1 - h["rho"], h["epsilon"]),
        slots=lambda h: {"velocity": 0.0} | ({"momentum": 0.0} if h["momentum"] else {}),
        hyperparameters=_learning_rate(0.001)
        | {
            "rho": Hyperparameter(0.9, _FRACTION, "Decay of the mean of the squared gradients."),
            "momentum": Hyperparameter(0.0, _FRACTION, "Decay of the velocity."),
        }
        | _EPSILON,
        keras="RMSprop",
    ),
    "adam": Rule(
        doc="moving average of gradients divided by the root of that of their squares, with bias correction",
        block=_adam,
        scalars=_adam_scalars,
        slots=lambda h: {"momentum": 0.0, "velocity": 0.0},
        hyperparameters=_ADAM,
        keras="Adam",
        counts=True,
    ),
    "adamw": Rule(
        doc="adam with decoupled weight decay",
        block=_adamw,
        scalars=lambda h, t: _adam_scalars(h, t) + float32(h["weight_decay"] * h["learning_rate"]),
        slots=lambda h: {"momentum": 0.0, "velocity": 0.0},
        hyperparameters=_ADAM
        | {
            "weight_decay": Hyperparameter(
                0.004, _AT_LEAST_0, "Fraction of the weights, times η, that an update removes."
            )
        },
        keras="AdamW",
        counts=True,
    ),
}
