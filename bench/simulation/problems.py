"""The problems that are minimised in virtual time: small problems whose trajectories theory predicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from downpour.protos.sentences.choices import did_you_mean

Vector = NDArray[np.float32]
BLOCK = 512  # noise vectors at a time


class Problem:
    """The trivial problem with one weight and gradient 0, and the base class of the others.

    Attributes:
        dim: The number of weights.
        batch: The number of samples of a gradient.
        optimum: The minimum `float64[dim]` of the mean of all workers' losses; None if there is none.
        noisy: Whether gradients at the optimum differ from 0.
    """

    doc = "only timing"
    dim = 1
    batch = 1
    optimum: NDArray[np.float64] | None = None
    noisy = False

    def initial(self) -> Vector:
        """Return the initial weights `float32[dim]`."""
        return np.zeros(self.dim, np.float32)

    def gradient(self, worker: int, weights: Vector) -> Vector:
        """Return one stochastic gradient `float32[dim]`, which must not be modified."""
        return _NOTHING


_NOTHING = np.zeros(1, np.float32)


class Linear(Problem):
    """f(w) = E[g]·w with small integer gradients: with η a power of 2 every sum is exact.

    Attributes:
        total: The sum of all gradients so far, `float64[dim]`.
    """

    doc = "integer gradients, whose sum shows a lost or a doubled push"

    def __init__(self, seed: int, workers: int, dim: int = 4) -> None:
        """Build a problem whose gradients are integers from −8 to 8."""
        self.dim, self._rng = dim, np.random.default_rng((seed, 1 << 20))
        self.total = np.zeros(dim)

    def gradient(self, worker: int, weights: Vector) -> Vector:
        """Return a gradient that does not depend on the weights."""
        gradient = self._rng.integers(-8, 9, self.dim).astype(np.float32)
        self.total += gradient
        return gradient


class Quadratic(Problem):
    """f_i(w) = h/2 |w − c_i|² with Gaussian noise of deviation σ on every gradient element; starts at 1."""

    doc = "h/2 |w − c|² with noise of deviation sigma; centers: optima that the workers take in turn"

    def __init__(
        self, seed: int, workers: int, h: float = 1.0, sigma: float = 0.0, dim: int = 1,
        centers: tuple[float, ...] = (0.0,),
    ) -> None:  # fmt: skip
        """Build a problem with one stream of noise for all workers."""
        if len(centers) > workers:
            raise ValueError(f"centers must be at most {workers}, as there are workers; received {len(centers)}")
        self.dim, self._h, self._sigma = dim, np.float32(h), sigma
        self._centers = [np.float32(centers[worker % len(centers)]) for worker in range(workers)]
        self.optimum = np.full(dim, np.mean(self._centers, dtype=np.float64))
        self.noisy = sigma > 0 or len(set(self._centers)) > 1
        self._noise = self._draw(np.random.default_rng((seed, 1 << 20)))

    def initial(self) -> Vector:
        """Return 1 for every weight."""
        return np.ones(self.dim, np.float32)

    def gradient(self, worker: int, weights: Vector) -> Vector:
        """Return h (w − c_i) + σ n."""
        gradient: Vector = (weights - self._centers[worker]) * self._h
        return gradient + next(self._noise) if self._sigma else gradient

    def _draw(self, rng: np.random.Generator) -> Iterator[Vector]:
        while True:
            yield from (self._sigma * rng.standard_normal((BLOCK, self.dim))).astype(np.float32)


class Logistic(Problem):
    """Logistic regression from 0 on random data: normal features, a tenth of the labels flipped."""

    doc = "logistic regression on drawn samples"
    noisy = True

    def __init__(self, seed: int, workers: int, dim: int = 10, samples: int = 1000, batch: int = 32) -> None:
        """Draw the data and compute the optimum."""
        self.dim, self.batch = dim, batch
        self._rng = np.random.default_rng((seed, 1 << 20))
        x = self._rng.standard_normal((samples, dim))
        sign = np.sign(x @ self._rng.standard_normal(dim)) * np.where(self._rng.random(samples) < 0.1, -1, 1)
        self._signed = (x * sign[:, None]).astype(np.float32)
        self.optimum = self._minimise()

    def gradient(self, worker: int, weights: Vector) -> Vector:
        """Return the mean gradient of a batch drawn with replacement."""
        rows = self._signed[self._rng.integers(0, len(self._signed), self.batch)]
        return _logistic_gradient(rows, weights)

    def loss(self, weights: Vector) -> float:
        """Return the mean loss of all samples."""
        return float(np.logaddexp(0.0, -(self._signed @ weights)).mean())

    def _minimise(self) -> NDArray[np.float64]:
        """Return the optimum, found by Newton's method."""
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
    """A row of the registry: the constructor of a problem, and the parsers of its parameters."""

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
    """Build a problem from `name` or `name:key=value,…`; `centers` accepts several values, separated by commas.

    Raises:
        ValueError: The problem or a parameter does not exist, or a value is out of range.
    """
    name, _, rest = text.partition(":")
    if name not in PROBLEMS:
        raise ValueError(f"must be one of {', '.join(PROBLEMS)}{did_you_mean(name, PROBLEMS)}")
    kind, values = PROBLEMS[name], {}
    for key, value in _assignments(name, rest):
        if key not in kind.parameters:
            allowed = f"only {', '.join(kind.parameters)}" if kind.parameters else "no parameters"
            raise ValueError(f"{name} must have {allowed}; received {key!r}")
        if key in values:
            raise ValueError(f"{name} must have {key} once; received it again as {value!r}")
        try:
            values[key] = kind.parameters[key](value)
        except ValueError:
            raise ValueError(f"{name} must have a number in range for {key}; received {value!r}") from None
    return kind.make(seed, workers, **values)


def _assignments(name: str, text: str) -> list[tuple[str, str]]:
    """Parse `h=1,centers=0,1` into pairs; a value extends to the next name."""
    found: list[tuple[str, str]] = []
    for token in text.split(",") if text else []:
        key, equals, value = token.partition("=")
        if equals:
            found.append((key.strip(), value))
        elif found and PROBLEMS[name].parameters.get(found[-1][0]) is _centers:
            found[-1] = (found[-1][0], f"{found[-1][1]},{token}")
        else:
            raise ValueError(f"{name} must have parameters of the form NAME=VALUE; received {token!r}")
    return found
