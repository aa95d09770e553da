"""What is minimised in virtual time: small problems whose trajectories theory predicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from downpour.protos.settings import did_you_mean

Vector = NDArray[np.float32]
BLOCK = 512  # noise vectors at a time


class Problem:
    """No problem at all: one weight, gradient 0.

    Attributes:
        dim: Weights.
        batch: Samples that a gradient averages over.
        optimum: Where the mean of all workers' losses is least, `float64[dim]`; None if there is no such point.
        noisy: Whether updates go on at the optimum.
    """

    doc = "only timing"
    dim = 1
    batch = 1
    optimum: NDArray[np.float64] | None = None
    noisy = False

    def initial(self) -> Vector:
        """Weights `float32[dim]` to begin with."""
        return np.zeros(self.dim, np.float32)

    def gradient(self, worker: int, weights: Vector) -> Vector:
        """One stochastic gradient `float32[dim]`, not to be written to."""
        return _NOTHING


_NOTHING = np.zeros(1, np.float32)


class Linear(Problem):
    """f(w) = E[g]·w with small integer gradients: with η a power of 2 every sum is exact.

    Attributes:
        total: Sum of all gradients so far, `float64[dim]`.
    """

    doc = "integer gradients, whose sum shows a lost or a doubled push"

    def __init__(self, seed: int, workers: int, dim: int = 4) -> None:
        """Gradients from −8 to 8."""
        self.dim, self._rng = dim, np.random.default_rng((seed, 1 << 20))
        self.total = np.zeros(dim)

    def gradient(self, worker: int, weights: Vector) -> Vector:
        """Independent of the weights."""
        gradient = self._rng.integers(-8, 9, self.dim).astype(np.float32)
        self.total += gradient
        return gradient


class Quadratic(Problem):
    """f_i(w) = h/2 |w − c_i|², gradients with noise of deviation σ in every direction; begins at 1."""

    doc = "h/2 |w − c|² with noise of deviation sigma; centers: one optimum, or one a worker"

    def __init__(
        self, seed: int, workers: int, h: float = 1.0, sigma: float = 0.0, dim: int = 1,
        centers: tuple[float, ...] = (0.0,),
    ) -> None:  # fmt: skip
        """One noise stream for all workers."""
        if len(centers) not in (1, workers):
            raise ValueError(f"centers must be one or one for each of {workers} workers; {len(centers)} were given")
        self.dim, self._h, self._sigma = dim, np.float32(h), sigma
        self._centers = [np.float32(center) for center in (centers * workers if len(centers) == 1 else centers)]
        self.optimum = np.full(dim, np.mean(self._centers, dtype=np.float64))
        self.noisy = sigma > 0 or len(set(self._centers)) > 1
        self._noise = self._draw(np.random.default_rng((seed, 1 << 20)))

    def initial(self) -> Vector:
        """1 everywhere."""
        return np.ones(self.dim, np.float32)

    def gradient(self, worker: int, weights: Vector) -> Vector:
        """H (w − c_i) + σ n."""
        gradient: Vector = (weights - self._centers[worker]) * self._h
        return gradient + next(self._noise) if self._sigma else gradient

    def _draw(self, rng: np.random.Generator) -> Iterator[Vector]:
        while True:
            yield from (self._sigma * rng.standard_normal((BLOCK, self.dim))).astype(np.float32)


class Logistic(Problem):
    """Logistic regression on drawn data, from 0: features normal, labels by a hidden direction, a tenth flipped."""

    doc = "logistic regression on drawn samples"
    noisy = True

    def __init__(self, seed: int, workers: int, dim: int = 10, samples: int = 1000, batch: int = 32) -> None:
        """Draws the data."""
        self.dim, self.batch = dim, batch
        self._rng = np.random.default_rng((seed, 1 << 20))
        x = self._rng.standard_normal((samples, dim))
        sign = np.sign(x @ self._rng.standard_normal(dim)) * np.where(self._rng.random(samples) < 0.1, -1, 1)
        self._signed = (x * sign[:, None]).astype(np.float32)
        self.optimum = self._minimise()

    def gradient(self, worker: int, weights: Vector) -> Vector:
        """Mean over a batch drawn with replacement."""
        rows = self._signed[self._rng.integers(0, len(self._signed), self.batch)]
        return _logistic_gradient(rows, weights)

    def loss(self, weights: Vector) -> float:
        """Mean over all samples."""
        return float(np.logaddexp(0.0, -(self._signed @ weights)).mean())

    def _minimise(self) -> NDArray[np.float64]:
        """Newton's method."""
        w, rows = np.zeros(self.dim), self._signed.astype(np.float64)
        for _ in range(30):
            p = 1.0 / (1.0 + np.exp(rows @ w))
            hessian = (rows * (p * (1 - p))[:, None]).T @ rows / len(rows) + 1e-9 * np.eye(self.dim)
            w = w + np.linalg.solve(hessian, (rows * p[:, None]).mean(axis=0))
        return w


def _logistic_gradient(rows: Vector, weights: Vector) -> Vector:
    p = 1.0 / (1.0 + np.exp(np.minimum(rows @ weights, np.float32(60))))
    gradient: Vector = -(rows * p[:, None]).mean(axis=0, dtype=np.float32)
    return gradient


@dataclass(frozen=True, slots=True)
class Kind:
    """A row of the registry: the class and how its parameters are read."""

    make: Callable[..., Problem]
    parameters: dict[str, Callable[[str], object]] = field(default_factory=dict)


def _number(text: str) -> float:
    value = float(text)
    if not -1e6 < value < 1e6:
        raise ValueError
    return value


def _not_negative(text: str) -> float:
    value = _number(text)
    if value < 0:
        raise ValueError
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 10_000_000:
        raise ValueError
    return value


def _centers(text: str) -> tuple[float, ...]:
    return tuple(_number(part) for part in text.replace("/", ",").replace(";", ",").split(","))


PROBLEMS: dict[str, Kind] = {
    "none": Kind(lambda seed, workers: Problem()),
    "linear": Kind(Linear, {"dim": _count}),
    "quadratic": Kind(Quadratic, {"h": _not_negative, "sigma": _not_negative, "dim": _count, "centers": _centers}),
    "logistic": Kind(Logistic, {"dim": _count, "samples": _count, "batch": _count}),
}


def problem_of(text: str, seed: int, workers: int) -> Problem:
    """A problem from `name` or `name:key=value,…`; `centers` takes several values, with commas between.

    Raises:
        ValueError: There is no such problem, or no such parameter, or its value does not fit.
    """
    name, _, rest = text.partition(":")
    if name not in PROBLEMS:
        raise ValueError(f"must be one of {', '.join(PROBLEMS)}{did_you_mean(name, PROBLEMS)}")
    kind, values = PROBLEMS[name], {}
    for key, value in _assignments(name, rest):
        if key not in kind.parameters:
            takes = f"be given only {', '.join(kind.parameters)}" if kind.parameters else "stand alone"
            raise ValueError(f"{name} must {takes}; {key!r} was given")
        if key in values:
            raise ValueError(f"{name} must be given {key} once; it was given again as {value!r}")
        try:
            values[key] = kind.parameters[key](value)
        except ValueError:
            raise ValueError(f"{name} must be given a number for {key}, in range; {value!r} was given") from None
    return kind.make(seed, workers, **values)


def _assignments(name: str, text: str) -> list[tuple[str, str]]:
    """`h=1,centers=0,1` as pairs: a value goes on until the next name."""
    found: list[tuple[str, str]] = []
    for token in text.split(",") if text else []:
        key, equals, value = token.partition("=")
        if equals:
            found.append((key.strip(), value))
        elif found and PROBLEMS[name].parameters.get(found[-1][0]) is _centers:
            found[-1] = (found[-1][0], f"{found[-1][1]},{token}")
        else:
            raise ValueError(f"{name} must be given its parameters as NAME=VALUE; {token!r} was given")
    return found
