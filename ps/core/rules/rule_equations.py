"""The equations of the update rules on one block of a flat vector, equal to the Keras optimizers element by element.

They follow Keras's order of operations, with scalars in float32, so that results agree to the last bit wherever
IEEE 754 fixes them. `core.optimizer` iterates over the blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from downpour.ps.core.rules.rule import Scalar, Scalars, Settings, Slots, Vector, float32


def sgd(w: Vector, g: Vector, out: Vector, s: Vector, slots: Slots, scalars: Scalars) -> None:
    """Gradient descent: w' = w − gη."""
    (η,) = scalars
    np.multiply(g, η, out)
    np.subtract(w, out, out)


def momentum(w: Vector, g: Vector, out: Vector, s: Vector, slots: Slots, scalars: Scalars) -> None:
    """Momentum (Polyak 1964): m' = mμ − gη, w' = w + m'."""
    (m,), (η, μ) = slots, scalars
    np.multiply(g, η, out)
    np.multiply(m, μ, m)
    np.subtract(m, out, m)
    np.add(w, m, out)


def nesterov(w: Vector, g: Vector, out: Vector, s: Vector, slots: Slots, scalars: Scalars) -> None:
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


def adagrad(w: Vector, g: Vector, out: Vector, s: Vector, slots: Slots, scalars: Scalars) -> None:
    """Adagrad (Duchi, Hazan, Singer 2011), the optimizer of Downpour SGD: a' = a + g², w' = w − gη / √(a' + ε)."""
    (a,), (η, ε) = slots, scalars
    np.multiply(g, g, s)
    np.add(a, s, a)
    np.add(a, ε, s)
    np.sqrt(s, out)
    np.multiply(g, η, s)
    np.divide(s, out, out)
    np.subtract(w, out, out)


def rmsprop(w: Vector, g: Vector, out: Vector, s: Vector, slots: Slots, scalars: Scalars) -> None:
    """RMSprop (Hinton 2012): v' = ρv + (1−ρ)g², d = gη / √(v' + ε), w' = w − d.

    With a momentum above 0, for which there is a slot: m' = μm + d, w' = w − m'.
    """
    (v, *momentum), (η, μ, ρ, one_minus_ρ, ε) = slots, scalars
    np.multiply(g, g, s)
    np.multiply(s, one_minus_ρ, s)
    np.multiply(v, ρ, v)
    np.add(v, s, v)
    np.add(v, ε, s)
    _rmsprop_step(w, g, out, s, momentum, η, μ)


def centered_rmsprop(w: Vector, g: Vector, out: Vector, s: Vector, slots: Slots, scalars: Scalars) -> None:
    """RMSprop with the estimated variance (Graves 2013): a' = ρa + (1−ρ)g, d = gη / √(v' − a'² + ε), w' = w − d."""
    (v, a, *momentum), (η, μ, ρ, one_minus_ρ, ε) = slots, scalars
    np.multiply(g, g, s)
    np.multiply(s, one_minus_ρ, s)
    np.multiply(v, ρ, v)
    np.add(v, s, v)
    np.multiply(g, one_minus_ρ, s)
    np.multiply(a, ρ, a)
    np.add(a, s, a)
    np.multiply(a, a, s)
    np.subtract(v, s, s)
    np.add(s, ε, s)
    _rmsprop_step(w, g, out, s, momentum, η, μ)


def _rmsprop_step(
    w: Vector, g: Vector, out: Vector, s: Vector, momentum: Sequence[Vector], η: Scalar, μ: Scalar
) -> None:
    """Write the new weights to `out`, given the square of the divisor in `s`."""
    np.sqrt(s, out)
    np.multiply(g, η, s)
    np.divide(s, out, out)
    d = out
    for m in momentum:
        np.multiply(m, μ, m)
        np.add(m, out, m)
        d = m
    np.subtract(w, d, out)


def adam(w: Vector, g: Vector, out: Vector, s: Vector, slots: Slots, scalars: Scalars) -> None:
    """Adam (Kingma, Ba 2015) with ε̂: m' = m + (g−m)(1−β₁), v' = v + (g²−v)(1−β₂), w' = w − m'α / (√v' + ε).

    AMSGrad (Reddi, Kale, Kumar 2018), for which there is a third slot: v̂' = max(v̂, v') in place of v' in the step.
    """
    (m, v, *maximum), (α, one_minus_β1, one_minus_β2, ε) = slots, scalars
    _move_moments(g, s, m, v, one_minus_β1, one_minus_β2)
    for largest in maximum:
        np.maximum(largest, v, out=largest)
        v = largest
    # `out` is first written by the slowest operation, the square root, which hides that its cache lines are
    # fetched before they are written; so in the other rules that have a root.
    np.multiply(m, α, s)
    np.sqrt(v, out)
    np.add(out, ε, out)
    np.divide(s, out, s)
    np.subtract(w, s, out)


def adam_scalars(h: Settings, t: int) -> Scalars:
    """Return the bias-corrected step size α = η √(1 − β₂ᵗ) / (1 − β₁ᵗ), 1−β₁, 1−β₂ and ε."""
    η, β1_t, β2_t = np.float32(h["learning_rate"]), _power(h["beta_1"], t), _power(h["beta_2"], t)
    α = η * np.sqrt(np.float32(1) - β2_t) / (np.float32(1) - β1_t)
    return float32(α, 1 - h["beta_1"], 1 - h["beta_2"], h["epsilon"])


def nadam(w: Vector, g: Vector, out: Vector, s: Vector, slots: Slots, scalars: Scalars) -> None:
    """Nadam (Dozat 2016), Adam with Nesterov momentum whose decay μₜ = β₁(1 − 0.96ᵗ/2) rises.

    m̂ = m'μₜ₊₁ / (1 − Πμ₁…μₜ₊₁) + g(1−μₜ) / (1 − Πμ₁…μₜ), v̂ = v' / (1 − β₂ᵗ), w' = w − m̂η / (√v̂ + ε).
    """
    (m, v), (η, one_minus_β1, one_minus_β2, μ_next, c_next, one_minus_μ, c, c2, ε) = slots, scalars
    _move_moments(g, s, m, v, one_minus_β1, one_minus_β2)
    np.multiply(m, μ_next, s)
    np.divide(s, c_next, s)
    np.multiply(g, one_minus_μ, out)
    np.divide(out, c, out)
    np.add(s, out, s)
    np.multiply(s, η, s)
    np.divide(v, c2, out)
    np.sqrt(out, out)
    np.add(out, ε, out)
    np.divide(s, out, s)
    np.subtract(w, s, out)


def nadam_scalars(h: Settings, t: int) -> Scalars:
    """Return η, 1−β₁, 1−β₂, μₜ₊₁, 1 − Πμ₁…μₜ₊₁, 1−μₜ, 1 − Πμ₁…μₜ, 1 − β₂ᵗ and ε."""
    one, β1, β2 = np.float32(1), np.float32(h["beta_1"]), np.float32(h["beta_2"])
    μ, μ_next = (β1 * (one - np.float32(0.5) * _power(0.96, step)) for step in (t, t + 1))
    product = np.float32(nadam_product(h, t))
    c, c2 = one - product, one - _power(h["beta_2"], t)
    return float32(h["learning_rate"], one - β1, one - β2, μ_next, one - product * μ_next, one - μ, c, c2, h["epsilon"])


def nadam_product(h: Settings, t: int) -> float:
    """Return Πμ₁…μₜ = β₁ᵗ Π(1 − 0.96ⁱ/2), which Keras keeps in a variable."""
    rising = _nadam_factors()
    return float(float(np.float32(h["beta_1"])) ** t * rising[min(t, len(rising) - 1)])


@cache
def _nadam_factors() -> Vector:
    """Return Π(1 − 0.96ⁱ/2) for i from 1 to 0, 1, 2, …, until float64 does not change any more."""
    return np.concatenate([[1.0], np.cumprod(1 - 0.5 * float(np.float32(0.96)) ** np.arange(1, 900))])


def adamax(w: Vector, g: Vector, out: Vector, s: Vector, slots: Slots, scalars: Scalars) -> None:
    """Adamax (Kingma, Ba 2015): m' = m + (g−m)(1−β₁), u' = max(uβ₂, |g|), w' = w − m'η / ((u' + ε)(1 − β₁ᵗ))."""
    (m, u), (η, one_minus_β1, β2, c, ε) = slots, scalars
    np.subtract(g, m, s)
    np.multiply(s, one_minus_β1, s)
    np.add(m, s, m)
    np.multiply(u, β2, u)
    np.abs(g, s)
    np.maximum(u, s, out=u)
    np.add(u, ε, out)
    np.multiply(out, c, out)
    np.multiply(m, η, s)
    np.divide(s, out, s)
    np.subtract(w, s, out)


def adamax_scalars(h: Settings, t: int) -> Scalars:
    """Return η, 1−β₁, β₂, 1 − β₁ᵗ and ε."""
    correction = np.float32(1) - _power(h["beta_1"], t)
    return float32(h["learning_rate"], 1 - h["beta_1"], h["beta_2"], correction, h["epsilon"])


def adadelta(w: Vector, g: Vector, out: Vector, s: Vector, slots: Slots, scalars: Scalars) -> None:
    """Adadelta (Zeiler 2012): a' = ρa + (1−ρ)g², d = g√(x + ε) / √(a' + ε), x' = ρx + (1−ρ)d², w' = w − dη."""
    (a, x), (η, ρ, one_minus_ρ, ε) = slots, scalars
    np.multiply(g, g, s)
    np.multiply(s, one_minus_ρ, s)
    np.multiply(a, ρ, a)
    np.add(a, s, a)
    np.add(x, ε, s)
    np.sqrt(s, out)
    np.multiply(out, g, s)
    np.add(a, ε, out)
    np.sqrt(out, out)
    np.divide(s, out, s)
    np.multiply(s, s, out)
    np.multiply(out, one_minus_ρ, out)
    np.multiply(x, ρ, x)
    np.add(x, out, x)
    np.multiply(s, η, s)
    np.subtract(w, s, out)


def ftrl(w: Vector, g: Vector, out: Vector, s: Vector, slots: Slots, scalars: Scalars) -> None:
    """FTRL-Proximal (McMahan et al. 2013) with a power p of the sum of squares, 1/2 in the publication.

    n' = n + g², z' = z + (g + wκ) − w(n'ᵖ − nᵖ)/η, w' = (clip(z', −λ₁, λ₁) − z') / (n'ᵖ/η + λ₂).
    """
    (n, z), (η, p, κ, λ1, λ2) = slots, scalars
    _power_of(n, p, out)
    np.multiply(g, g, s)
    np.add(n, s, n)
    _power_of(n, p, s)
    np.subtract(s, out, out)
    np.divide(out, η, out)
    np.multiply(out, w, out)
    np.multiply(w, κ, s)
    np.add(g, s, s)
    np.subtract(s, out, s)
    np.add(z, s, z)
    _power_of(n, p, s)  # again, for want of a third array
    np.divide(s, η, s)
    np.add(s, λ2, s)
    np.maximum(z, -λ1, out=out)
    np.minimum(out, λ1, out=out)
    np.subtract(out, z, out)
    np.divide(out, s, out)


def ftrl_scalars(h: Settings, t: int) -> Scalars:
    """Return η, the power p, twice the shrinkage, λ₁, and twice the L2 strength including β/(2η)."""
    η = np.float32(h["learning_rate"])
    λ2 = np.float32(h["l2_regularization_strength"]) + np.float32(h["beta"]) / (np.float32(2) * η)
    κ = 2 * h["l2_shrinkage_regularization_strength"]
    return float32(η, -h["learning_rate_power"], κ, h["l1_regularization_strength"], np.float32(2) * λ2)


def lion(w: Vector, g: Vector, out: Vector, s: Vector, slots: Slots, scalars: Scalars) -> None:
    """Lion (Chen et al. 2023): w' = w − η sign(mβ₁ + g(1−β₁)), m' = mβ₂ + g(1−β₂)."""
    (m,), (η, β1, one_minus_β1, β2, one_minus_β2) = slots, scalars
    np.multiply(m, β1, s)
    np.multiply(g, one_minus_β1, out)
    np.add(s, out, s)
    np.sign(s, s)
    np.multiply(s, η, s)
    np.subtract(w, s, out)
    np.multiply(m, β2, m)
    np.multiply(g, one_minus_β2, s)
    np.add(m, s, m)


def lion_scalars(h: Settings, t: int) -> Scalars:
    """Return η, β₁, 1−β₁, β₂ and 1−β₂, the differences in float32."""
    one, β1, β2 = np.float32(1), np.float32(h["beta_1"]), np.float32(h["beta_2"])
    return float32(h["learning_rate"], β1, one - β1, β2, one - β2)


def _move_moments(g: Vector, s: Vector, m: Vector, v: Vector, one_minus_β1: Scalar, one_minus_β2: Scalar) -> None:
    """Move the means of the gradients and of their squares."""
    np.multiply(g, g, s)
    np.subtract(s, v, s)
    np.multiply(s, one_minus_β2, s)
    np.add(v, s, v)
    np.subtract(g, m, s)
    np.multiply(s, one_minus_β1, s)
    np.add(m, s, m)


def _power_of(x: Vector, exponent: Scalar, out: Vector) -> None:
    if exponent == 0.5:
        np.sqrt(x, out)
    else:
        np.power(x, exponent, out)


def _power(base: float, exponent: int) -> np.float32:
    """Return a power in float32 as TensorFlow computes it: that of the rounded base, rounded once.

    One bit more or less would be 6e-5 of Adam's first step size.
    """
    return np.float32(float(np.float32(base)) ** exponent)
