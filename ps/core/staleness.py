"""The registry of compensations: how the staleness of a gradient changes its update."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from downpour.protos.sentences.sentence import sentence
from downpour.ps.core.registry import Parameter, positive, read

Vector = NDArray[np.float32]
MEAN_SQUARE_DECAY = 0.95
MEAN_SQUARE_EPSILON = 1e-7


class Compensation:
    """Base of all compensations. A stale gradient is applied like a fresh one.

    Attributes:
        corrects: Whether `correct` does anything: only then are old weights kept.
        favours_fast_workers: Whether the factor gives slow workers less weight.
    """

    corrects = False
    favours_fast_workers = False

    def scale(self, staleness: int, live: int, learning_rate: float) -> float:
        """Return a factor on the learning rate.

        Args:
            staleness: The staleness τ of the gradient.
            live: The number of live workers, which is the concurrency.
            learning_rate: η of this update without the factor.
        """
        return 1.0

    def refuse(self, staleness: int, live: int) -> str:
        """Return why a gradient of that staleness must be dropped; empty if it is accepted."""
        return ""

    def correct(self, gradient: Vector, weights: Vector, base: Vector, worker: int, batch: float) -> Vector:
        """Return an estimate of the gradient `float32[n]` at the current weights, valid until the next call.

        Args:
            gradient: The gradient at `base`; read-only.
            weights: `float32[n]`, the current weights.
            base: `float32[n]`, the weights that the worker had pulled.
            worker: The rank of the worker.
            batch: The number of samples that a local step averages over.
        """
        return gradient

    def leave(self, worker: int) -> None:
        """Discard the state of a worker."""


class Inverse(Compensation):
    """η / max(1, τ) (Zhang et al. 2015). Slow workers have less weight: a bias if their data differ."""

    favours_fast_workers = True

    def scale(self, staleness: int, live: int, learning_rate: float) -> float:
        """Return the inverse of the staleness."""
        return 1.0 / staleness if staleness > 1 else 1.0


class DelayAdaptive(Compensation):
    """Delay-adaptive steps (Koloskova, Stich, Jaggi, NeurIPS 2022): η while τ ≤ P, else min(η, 1/(4Lτ)).

    If L is unknown, η is assumed to be the largest step allowed at τ = P; the step is then η·P/τ.
    """

    def __init__(self, smoothness: float | None, drop: bool = False) -> None:
        """Create the policy with L = `smoothness`, None if unknown, or with a step of 0 if `drop`."""
        self._smoothness, self._drop = smoothness, drop

    def scale(self, staleness: int, live: int, learning_rate: float) -> float:
        """Return 1 up to the concurrency, and then a factor that falls as 1/τ."""
        live = max(1, live)
        if staleness <= live:
            return 1.0
        if self._drop:
            return 0.0
        if self._smoothness is None:
            return live / staleness
        bound = 4.0 * self._smoothness * staleness * learning_rate
        return 1.0 / max(1.0, bound)  # a schedule may reach a learning rate of 0, for which every step is small enough

    def refuse(self, staleness: int, live: int) -> str:
        """Return "stale" for a staleness above the concurrency, if such gradients are dropped."""
        return "stale" if self._drop and staleness > max(1, live) else ""


class DelayCompensation(Compensation):
    """DC-ASGD (Zheng et al., ICML 2017): g + H ⊙ (w − w_bak), with λ g⊙g for the Hessian's diagonal H.

    The norm of the correction is limited to `clip` times that of the gradient, since the first-order expansion is not
    valid far from the base.
    """

    corrects = True

    def __init__(self, strength: tuple[float, bool] = (0.04, False), clip: float = 1.0) -> None:
        """Create the policy with λ.

        Args:
            strength: λ, and whether it is in units of the batch size.
            clip: The correction's largest norm over the gradient's; 0 does not clip.
        """
        (self.strength, self.per_sample), self.clip = strength, clip
        self._scratch: tuple[Vector, Vector] | None = None

    def curvature(self, gradient: Vector, worker: int, batch: float, out: Vector) -> None:
        """Write H = λ g⊙g `float32[n]` to `out`."""
        np.multiply(gradient, gradient, out)
        np.multiply(out, np.float32(self.strength_for(batch)), out)

    def strength_for(self, batch: float) -> float:
        """Return λ for a gradient that averages over `batch` samples."""
        return self.strength * batch if self.per_sample else self.strength

    def correct(self, gradient: Vector, weights: Vector, base: Vector, worker: int, batch: float) -> Vector:
        """Return g + H ⊙ (w − w_bak), with the correction clipped."""
        if self._scratch is None or len(self._scratch[0]) != len(gradient):
            self._scratch = (np.empty(len(gradient), np.float32), np.empty(len(gradient), np.float32))
        corrected, correction = self._scratch
        with np.errstate(over="ignore", invalid="ignore"):
            self.curvature(gradient, worker, batch, out=corrected)
            np.subtract(weights, base, correction)
            np.multiply(correction, corrected, correction)
            if self.clip:
                most, norm = self.clip * float(np.linalg.norm(gradient)), float(np.linalg.norm(correction))
                if not np.isfinite(norm):
                    correction.fill(0.0)
                elif norm > most:
                    np.multiply(correction, np.float32(most / norm), correction)
            np.add(gradient, correction, corrected)
        return corrected


class AdaptiveDelayCompensation(DelayCompensation):
    """DC-ASGD-a: λ_t = λ₀ / √(MS + 1e-7), MS ← .95 MS + .05 g⊙g, one MS `float32[n]` for each worker."""

    def __init__(self, strength: tuple[float, bool] = (2.0, False), clip: float = 1.0) -> None:
        """Create the policy with the strength λ₀ and the limit of the correction."""
        super().__init__(strength, clip)
        self._mean_squares: dict[int, Vector] = {}

    def curvature(self, gradient: Vector, worker: int, batch: float, out: Vector) -> None:
        """Update the MS of the worker and write H = λ_t g⊙g to `out`."""
        mean_square = self._mean_squares.get(worker)
        if mean_square is None:
            mean_square = self._mean_squares[worker] = np.zeros(len(gradient), np.float32)
        square = gradient * gradient
        np.multiply(mean_square, np.float32(MEAN_SQUARE_DECAY), mean_square)
        np.multiply(square, np.float32(1 - MEAN_SQUARE_DECAY), out)
        np.add(mean_square, out, mean_square)
        np.add(mean_square, np.float32(MEAN_SQUARE_EPSILON), out)
        np.sqrt(out, out)
        np.divide(np.multiply(square, np.float32(self.strength_for(batch)), square), out, out)

    def leave(self, worker: int) -> None:
        """Discard the MS of the worker."""
        self._mean_squares.pop(worker, None)


@dataclass(frozen=True, slots=True)
class Policy:
    """A row of the registry of compensations.

    Attributes:
        doc: A phrase that describes the compensation.
        make: A function that builds the compensation from the values of the parameters.
        parameters: The parameters that follow the colon.
        example: A valid value of `--staleness-policy`, where the name alone is not one.
    """

    doc: str
    make: Callable[..., Compensation]
    parameters: tuple[Parameter, ...] = ()
    example: str = ""


def _smoothness(text: str) -> tuple[float | None, bool]:
    if text in ("auto", "drop"):
        return None, text == "drop"
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value, False


def _strength(text: str) -> tuple[float, bool]:
    value = float(text.removesuffix("b"))
    if not 0 <= value < float("inf"):
        raise ValueError
    return value, text.endswith("b")


def _delay_adaptive(bound: tuple[float | None, bool]) -> Compensation:
    return DelayAdaptive(*bound)


_LAMBDA = sentence("number_of_batches")
_CLIP = positive("CLIP", default="1", or_zero=True)

POLICIES: dict[str, Policy] = {
    "none": Policy("stale gradients are applied like fresh ones", Compensation),
    "inverse": Policy("η / max(1, τ)", Inverse),
    "delay_adaptive": Policy(
        "η while τ ≤ workers, then at most 1/(4Lτ), or dropped",
        _delay_adaptive,
        (Parameter("L", sentence("number_auto_or_drop"), _smoothness, default="auto"),),
    ),
    "dc_asgd": Policy(
        "g + λ g⊙g⊙(w − w_bak)",
        DelayCompensation,
        (Parameter("LAMBDA", _LAMBDA, _strength, default="0.04"), _CLIP),
    ),
    "dc_asgd_adaptive": Policy(
        "the same with λ over the root of the gradients' running mean square",
        AdaptiveDelayCompensation,
        (Parameter("LAMBDA", _LAMBDA, _strength, default="2"), _CLIP),
    ),
}


def compensation_of(staleness: str) -> Compensation:
    """Return the compensation that a value of `--staleness-policy` names.

    Raises:
        ValueError: The value names no compensation, or its parameters are invalid.
    """
    row, values = read(staleness, POLICIES)
    return row.make(*values)


def needs_old_weights(staleness: str) -> bool:
    """Return whether a value of `--staleness-policy` needs the weights that gradients were computed from."""
    return compensation_of(staleness).corrects
