"""Update rules on a flat vector, each equal to Keras's optimizer of that name, element by element.

Every rule is its equations on one block of the vector, in Keras's order of operations and with scalars in
float32, so that results agree to the last bit wherever IEEE 754 fixes them. A block's operands stay in the
processor's caches from the first equation to the last; no temporary has the size of the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from protos.errors import InvalidRequest

Vector = NDArray[np.float32]
Scalar = NDArray[np.float32]  # 0-d: a ufunc takes it 0.25 µs faster than a `np.float32`
Slots = tuple[Vector, ...]
Scalars = tuple[Scalar, ...]
Settings = Mapping[str, float]
State = Mapping[str, NDArray[np.generic]]

# Elements. Smaller blocks stay in the second-level cache, but lose more than that gains: to starting NumPy's
# loops, and to memory, which is fast only in long runs: with 32,768 Adam took 10-20 % longer.
BLOCK = 131_072


@dataclass(frozen=True, slots=True)
class Hyper:
    """Hyper-parameters by Keras's names; None is the default of the optimizer that is chosen."""

    learning_rate: float | None = None
    momentum: float | None = None
    rho: float | None = None
    beta_1: float | None = None
    beta_2: float | None = None
    epsilon: float | None = None
    weight_decay: float | None = None
    initial_accumulator_value: float | None = None


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
    """

    doc: str
    block: Callable[[Vector, Vector, Vector, Vector, Slots, Scalars], None]
    scalars: Callable[[Settings, int], Scalars]
    slots: Callable[[Settings], dict[str, float]]
    defaults: dict[str, float]

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


def _float32(*values: float | np.float32) -> Scalars:
    return tuple([np.array(value, np.float32) for value in values])


def _adam_scalars(h: Settings, t: int) -> Scalars:
    """The bias corrected step size α = η √(1 − β₂ᵗ) / (1 − β₁ᵗ), 1−β₁, 1−β₂ and ε."""
    η, β1, β2 = np.float32(h["learning_rate"]), np.float32(h["beta_1"]), np.float32(h["beta_2"])
    # Powers of the rounded β, rounded once, are TensorFlow's; a bit more or less here is 6e-5 of the first α.
    β1_t, β2_t = np.float32(float(β1) ** t), np.float32(float(β2) ** t)
    α = η * np.sqrt(np.float32(1) - β2_t) / (np.float32(1) - β1_t)
    return _float32(α, 1 - h["beta_1"], 1 - h["beta_2"], h["epsilon"])


# In Keras momentum and Nesterov are settings of SGD and momentum is 0 by default; here the name asks for one.
OPTIMIZERS: dict[str, Rule] = {
    "sgd": Rule(
        doc="plain gradient descent",
        block=_sgd,
        scalars=lambda h, t: _float32(h["learning_rate"]),
        slots=lambda h: {},
        defaults={"learning_rate": 0.01},
    ),
    "momentum": Rule(
        doc="gradient descent with momentum",
        block=_momentum,
        scalars=lambda h, t: _float32(h["learning_rate"], h["momentum"]),
        slots=lambda h: {"momentum": 0.0},
        defaults={"learning_rate": 0.01, "momentum": 0.9},
    ),
    "nesterov": Rule(
        doc="gradient descent with Nesterov's momentum",
        block=_nesterov,
        scalars=lambda h, t: _float32(h["learning_rate"], h["momentum"]),
        slots=lambda h: {"momentum": 0.0},
        defaults={"learning_rate": 0.01, "momentum": 0.9},
    ),
    "adagrad": Rule(
        doc="gradients over the root of the sum of their squares",
        block=_adagrad,
        scalars=lambda h, t: _float32(h["learning_rate"], h["epsilon"]),
        slots=lambda h: {"accumulator": h["initial_accumulator_value"]},
        defaults={"learning_rate": 0.001, "initial_accumulator_value": 0.1, "epsilon": 1e-7},
    ),
    "rmsprop": Rule(
        doc="gradients over the root of their running mean square",
        block=_rmsprop,
        scalars=lambda h, t: _float32(
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
    ),
    "adamw": Rule(
        doc="adam with decoupled weight decay",
        block=_adamw,
        scalars=lambda h, t: _adam_scalars(h, t) + _float32(h["weight_decay"] * h["learning_rate"]),
        slots=lambda h: {"momentum": 0.0, "velocity": 0.0},
        defaults={
            "learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "weight_decay": 0.004,
        },
    ),
}  # fmt: skip

_POSITIVE = ("a finite number > 0", lambda x: 0 < x < math.inf)
_NOT_NEGATIVE = ("a finite number >= 0", lambda x: 0 <= x < math.inf)
_DECAY = ("a number in [0, 1)", lambda x: 0 <= x < 1)
_BOUNDS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "learning_rate": _POSITIVE,
    "momentum": _DECAY,
    "rho": _DECAY,
    "beta_1": _DECAY,
    "beta_2": _DECAY,
    "epsilon": _POSITIVE,
    "weight_decay": _NOT_NEGATIVE,
    "initial_accumulator_value": _NOT_NEGATIVE,
}


def flag_of(key: str) -> str:
    """A hyper-parameter as the command line has it."""
    return "--" + {"initial_accumulator_value": "initial_accumulator"}.get(key, key).replace("_", "-")


def resolve(name: str, hyper: Hyper) -> dict[str, float]:
    """The hyper-parameters that an optimizer uses: those given, the others by default.

    Raises:
        ValueError: There is no such optimizer, it does not use one that was given, or one is out of bounds.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}. Received: {name!r}.")
    defaults = OPTIMIZERS[name].defaults
    given = {f.name: getattr(hyper, f.name) for f in fields(hyper) if getattr(hyper, f.name) is not None}
    for key, value in given.items():
        if key not in defaults:
            users = ", ".join(other for other, rule in OPTIMIZERS.items() if key in rule.defaults)
            raise ValueError(
                f"--optimizer {name} must be given only {', '.join(map(flag_of, defaults))}. "
                f"Received: {flag_of(key)} {value!r}. Leave it out, or choose --optimizer {users}."
            )
        bound, holds = _BOUNDS[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not holds(value):
            raise ValueError(f"{key} must be {bound}. Received: {key}={value!r}.")
    return defaults | {key: float(value) for key, value in given.items()}


class Optimizer:
    """One rule, its settings and its slots, for one shard.

    Attributes:
        name: Of the rule in `OPTIMIZERS`.
        size: Weights, n.
        settings: The hyper-parameters in use, defaults included.
        slots: State per weight by name, each `float32[n]`, changed in place by `apply`.
        step: Updates applied (Keras's `iterations`).
    """

    def __init__(self, name: str, hyper: Hyper, size: int) -> None:
        """Allocates the slots for `size` weights.

        Raises:
            ValueError: As `resolve`.
        """
        self.name = name
        self.size = size
        self.settings = resolve(name, hyper)
        self.step = 0
        self._rule = OPTIMIZERS[name]
        self.slots: dict[str, Vector] = {
            slot: np.full(size, value, np.float32) for slot, value in self._rule.slots(self.settings).items()
        }
        self._scratch = np.empty((2, min(size, BLOCK)), np.float32)

    @property
    def learning_rate(self) -> float:
        """The step size of an update that brings none of its own."""
        return self.settings["learning_rate"]

    @property
    def bytes_per_weight(self) -> int:
        """Bytes that an update must move per weight."""
        return self._rule.bytes_per_weight(self.settings)

    def apply(
        self,
        weights: Vector,
        gradient: Vector,
        out: Vector,
        learning_rate: float | None = None,
        scale: float | None = None,
        momentum: float | None = None,
    ) -> None:
        """Writes the updated weights into `out`, changes the slots in place and counts the step.

        A gradient too large to be squared in float32 does here what it does in Keras, without a warning.

        Args:
            weights: `float32[n]`, only read: others may be reading it.
            gradient: `float32[n]`, only read; may be read-only, or unaligned at some cost.
            out: `float32[n]`, overwritten; shares no memory with the other two.
            learning_rate: Instead of the setting, for this update.
            scale: A factor on the gradient: the update is that of `scale * gradient` in float32.
            momentum: Instead of the setting, for this update.

        Raises:
            ValueError: A vector is not `float32[n]`, `out` shares memory, or the optimizer keeps no momentum
                that could be replaced. Nothing has changed then.
        """
        self._check(weights, gradient, out)
        scalars = self._rule.scalars(self._settings(learning_rate, momentum), self.step + 1)
        if scale is None and not gradient.flags.aligned:
            scale = 1.0  # one copy by blocks; else every operation on the gradient makes its own
        factors = () if scale is None else _float32(scale)
        slots = self.slots.values()
        rule_block = self._rule.block
        with np.errstate(all="ignore"):
            for start in range(0, self.size, BLOCK):
                block = slice(start, min(start + BLOCK, self.size))
                s, g = self._scratch[:, : block.stop - start]
                if factors:
                    np.multiply(gradient[block], factors[0], g)
                else:
                    g = gradient[block]
                rule_block(weights[block], g, out[block], s, tuple([slot[block] for slot in slots]), scalars)
        self.step += 1

    def slot(self, name: str) -> Vector:
        """A slot itself, `float32[n]`.

        Raises:
            InvalidRequest: There is none of that name.
        """
        if name not in self.slots:
            raise InvalidRequest(
                f"a slot of {self.name} must be one of {', '.join(self.slots) or '(none)'}; received {name!r}. "
                "Check that both sides run the same version."
            )
        return self.slots[name]

    def state(self) -> dict[str, NDArray[np.generic]]:
        """A copy of what a checkpoint keeps: every slot, `float32[n]`, and `step`, `int64[]`."""
        slots = {name: slot.copy() for name, slot in self.slots.items()}
        return {"step": np.array(self.step, np.int64), **slots}

    def restore(self, state: State) -> None:
        """Continues from a `state` as if never interrupted.

        Raises:
            ValueError: It is not the state of such an optimizer of this size. Nothing has changed then.
        """
        if set(state) != {"step", *self.slots}:
            raise ValueError(
                f"the state of optimizer {self.name} must hold {', '.join(['step', *self.slots])}. "
                f"Received: {', '.join(state) or 'nothing'}. Resume with the optimizer of the checkpoint."
            )
        for name in self.slots:
            self._check_vector(f"slot {name}", state[name])
        step = np.asarray(state["step"])
        if step.shape != () or step.dtype.kind not in "iu" or int(step) < 0:
            raise ValueError(f"step must be one integer >= 0. Received: {step!r}.")
        for name, slot in self.slots.items():
            slot[:] = state[name]
        self.step = int(step)

    def _settings(self, learning_rate: float | None, momentum: float | None) -> Settings:
        """Those of one update."""
        override: dict[str, float] = {}
        if learning_rate is not None:
            override["learning_rate"] = learning_rate
        if momentum is not None:
            if "momentum" not in self.settings or "momentum" not in self.slots:
                raise ValueError(
                    f"optimizer {self.name} must have been built with a momentum to be given another. "
                    f"Received: momentum={momentum!r}."
                )
            override["momentum"] = momentum
        return {**self.settings, **override}

    def _check(self, weights: Vector, gradient: Vector, out: Vector) -> None:
        for what, vector in (("weights", weights), ("gradient", gradient), ("out", out)):
            self._check_vector(what, vector)
        if np.may_share_memory(out, weights) or np.may_share_memory(out, gradient):
            raise ValueError("out must share no memory with weights or gradient. Received: an overlap.")

    def _check_vector(self, what: str, vector: NDArray[np.generic]) -> None:
        if vector.shape != (self.size,) or vector.dtype != np.float32:
            received = f"{vector.dtype}[{', '.join(map(str, vector.shape))}]"
            raise ValueError(f"{what} must be float32[{self.size}]. Received: {received}.")
