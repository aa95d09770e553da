"""Update rules on a flat vector, each equal to Keras's optimizer of that name, element by element.

Every rule is its equations on one block of the vector, in Keras's order of operations and with scalars in
float32, so that results agree to the last bit wherever IEEE 754 fixes them. `core.optimizer` walks the blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
Scalar = NDArray[np.float32]  # 0-d: a ufunc takes it 0.25 µs faster than a `np.float32`
Slots = tuple[Vector, ...]
Scalars = tuple[Scalar, ...]
Settings = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Rule:
    """One optimizer.

    Attributes:
        doc: One line for the command line's help.
        block: The equations on one block: reads weights `w` and gradient `g`, writes the new weights `out`
            (until then a second scratch), scratch `s` and the slots.
        scalars: From the settings of an update and its number t (from 1) to what `block` receives.
        slots: From the settings to names and initial values of the state that is kept per weight.
        defaults: The hyper-parameters it uses, with Keras's defaults.
        counts: Whether the scalars depend on the update's number.
    """

    doc: str
    block: Callable[[Vector, Vector, Vector, Vector, Slots, Scalars], None]
    scalars: Callable[[Settings, int], Scalars]
    slots: Callable[[Settings], dict[str, float]]
    defaults: dict[str, float]
    counts: bool = False

    def bytes_per_weight(self, settings: Settings) -> int:
        """Bytes an update must move per weight: w and g read, w' written, each slot read and written."""
        return 4 * (3 + 2 * len(self.slots(settings)))


def _sgd(w: Vector, g: Vector, out: Vector, s: Vector, slots: Slots, scalars: Scalars) -> None:
    """SGD: w' = w − gη."""
    (η,) = scalars
    np.multiply(g, η, out)
    np.subtract(w, out, out)


def _momentum(w: Vector, g: Vector, out: Vector, s: Vector, slots: Slots, scalars: Scalars) -> None:
    """Polyak 1964: m' = mμ − gη, w' = w + m'."""
    (m,), (η, μ) = slots, scalars
    np.multiply(g, η, out)
    np.multiply(m, μ, m)
    np.subtract(m, out, m)
    np.add(w, m, out)


def _nesterov(w: Vector, g: Vector, out: Vector, s: Vector, slots: Slots, scalars: Scalars) -> None:
    """Nesterov 1983, as Sutskever et al. 2013 write it: m' = mμ − gη, w' = w + (m'μ − gη)."""
    (m,), (η, μ) = slots, scalars
    np.multiply(g, η, out)
    np.multiply(m, μ, m)
    np.subtract(m, out, m)
    np.multiply(m, μ, s)
    np.subtract(s, out, s)
    np.add(w, s, out)


def _adagrad(w: Vector, g: Vector, out: Vector, s: Vector, slots: Slots, scalars: Scalars) -> None:
    """Duchi, Hazan, Singer 2011 (Downpour's own): a' = a + g², w' = w − gη / √(a' + ε)."""
    (a,), (η, ε) = slots, scalars
    np.multiply(g, g, s)
    np.add(a, s, a)
    np.add(a, ε, s)
    np.sqrt(s, out)
    np.multiply(g, η, s)
    np.divide(s, out, out)
    np.subtract(w, out, out)


def _rmsprop(w: Vector, g: Vector, out: Vector, s: Vector, slots: Slots, scalars: Scalars) -> None:
    """Hinton 2012: v' = ρv + (1−ρ)g², d = gη / √(v' + ε), w' = w − d.

    With momentum, which has a slot if it is not 0: m' = μm + d, w' = w − m'.
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
    """Kingma, Ba 2015, with ε̂: m' = m + (g−m)(1−β₁), v' = v + (g²−v)(1−β₂), w' = w − m'α / (√v' + ε)."""
    _adam_step(g, out, s, slots, scalars)
    np.subtract(w, s, out)


def _adamw(w: Vector, g: Vector, out: Vector, s: Vector, slots: Slots, scalars: Scalars) -> None:
    """Loshchilov, Hutter 2019: Adam's step, but from w − w(λη); Keras multiplies by λ and by η in turn."""
    *adam, λη = scalars
    _adam_step(g, out, s, slots, tuple(adam))
    np.multiply(w, λη, out)
    np.subtract(w, out, out)
    np.subtract(out, s, out)


def _adam_step(g: Vector, out: Vector, s: Vector, slots: Slots, scalars: Scalars) -> None:
    """Leaves m'α / (√v' + ε) in `s`."""
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
    """Each value as a rule takes it."""
    return tuple([np.array(value, np.float32) for value in values])


def _adam_scalars(h: Settings, t: int) -> Scalars:
    """The bias corrected step size α = η √(1 − β₂ᵗ) / (1 − β₁ᵗ), 1−β₁, 1−β₂ and ε."""
    η, β1, β2 = np.float32(h["learning_rate"]), np.float32(h["beta_1"]), np.float32(h["beta_2"])
    # Powers of the rounded β, rounded once, are TensorFlow's; a bit more or less here is 6e-5 of the first α.
    β1_t, β2_t = np.float32(float(β1) ** t), np.float32(float(β2) ** t)
    α = η * np.sqrt(np.float32(1) - β2_t) / (np.float32(1) - β1_t)
    return float32(α, 1 - h["beta_1"], 1 - h["beta_2"], h["epsilon"])


# In Keras momentum and Nesterov are settings of SGD and momentum is 0 by default; here the name asks for one.
OPTIMIZERS: dict[str, Rule] = {
    "sgd": Rule(
        doc="plain gradient descent",
        block=_sgd,
        scalars=lambda h, t: float32(h["learning_rate"]),
        slots=lambda h: {},
        defaults={"learning_rate": 0.01},
    ),
    "momentum": Rule(
        doc="gradient descent with momentum",
        block=_momentum,
        scalars=lambda h, t: float32(h["learning_rate"], h["momentum"]),
        slots=lambda h: {"momentum": 0.0},
        defaults={"learning_rate": 0.01, "momentum": 0.9},
    ),
    "nesterov": Rule(
        doc="gradient descent with Nesterov's momentum",
        block=_nesterov,
        scalars=lambda h, t: float32(h["learning_rate"], h["momentum"]),
        slots=lambda h: {"momentum": 0.0},
        defaults={"learning_rate": 0.01, "momentum": 0.9},
    ),
    "adagrad": Rule(
        doc="gradients over the root of the sum of their squares",
        block=_adagrad,
        scalars=lambda h, t: float32(h["learning_rate"], h["epsilon"]),
        slots=lambda h: {"accumulator": h["initial_accumulator_value"]},
        defaults={"learning_rate": 0.001, "initial_accumulator_value": 0.1, "epsilon": 1e-7},
    ),
    "rmsprop": Rule(
        doc="gradients over the root of their running mean square",
        block=_rmsprop,
        scalars=lambda h, t: float32(
            h["learning_rate"], h["momentum"], h["rho"], 1 - h["rho"], h["epsilon"]
        ),
        slots=lambda h: {"velocity": 0.0} | ({"momentum": 0.0} if h["momentum"] else {}),
        defaults={"learning_rate": 0.001, "rho": 0.9, "momentum": 0.0, "epsilon": 1e-7},
    ),
    "adam": Rule(
        doc="running mean of gradients over the root of their running mean square, bias corrected",
        block=_adam,
        scalars=_adam_scalars,
        slots=lambda h: {"momentum": 0.0, "velocity": 0.0},
        defaults={"learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7},
        counts=True,
    ),
    "adamw": Rule(
        doc="adam with decoupled weight decay",
        block=_adamw,
        scalars=lambda h, t: _adam_scalars(h, t) + float32(h["weight_decay"] * h["learning_rate"]),
        slots=lambda h: {"momentum": 0.0, "velocity": 0.0},
        defaults={
            "learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "weight_decay": 0.004,
        },
        counts=True,
    ),
}  # fmt: skip
