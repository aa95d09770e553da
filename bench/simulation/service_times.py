"""The distributions of the times of steps and pushes in virtual time; each worker has its own random stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from downpour.ps.core.registry import Parameter, forms, positive, read

BLOCK = 256  # numbers drawn at a time, because the cost of NumPy is that of the calls
Draw = Callable[[np.random.Generator, int], np.ndarray]


@dataclass(frozen=True, slots=True)
class Distribution:
    """A row of the registry.

    Attributes:
        doc: The description in one line.
        make: A function from the parameters' values to a function that draws `float64[n]`, in seconds.
        parameters: The parameters after the colon.
    """

    doc: str
    make: Callable[..., Draw]
    parameters: tuple[Parameter, ...]


def _exponential(rate: float) -> Draw:
    return lambda rng, n: rng.exponential(1.0 / rate, n)


def _constant(seconds: float) -> Draw:
    return lambda rng, n: np.full(n, seconds)


def _shifted(shift: float, rate: float) -> Draw:
    return lambda rng, n: shift + rng.exponential(1.0 / rate, n)


def _pareto(alpha: float) -> Draw:
    return lambda rng, n: 1.0 + rng.pareto(alpha, n)


def _lognormal(mu: float, sigma: float) -> Draw:
    return lambda rng, n: rng.lognormal(mu, sigma, n)


def _real(text: str) -> float:
    value = float(text)
    if not -1e3 < value < 1e3:
        raise ValueError
    return value


SERVICES: dict[str, Distribution] = {
    "exp": Distribution("exponential with RATE per second", _exponential, (positive("RATE"),)),
    "const": Distribution("constant", _constant, (positive("SECONDS"),)),
    "shifted_exp": Distribution(
        "SHIFT seconds plus an exponential time", _shifted, (positive("SHIFT", or_zero=True), positive("RATE"))
    ),
    "pareto": Distribution("Pareto with minimum 1 s, P(T > t) = t^−ALPHA", _pareto, (positive("ALPHA"),)),
    "lognormal": Distribution(
        "log-normal; the logarithm has mean MU and deviation SIGMA", _lognormal,
        (Parameter("MU", "a number", _real), positive("SIGMA", or_zero=True)),
    ),
}  # fmt: skip


def split(text: str) -> list[str]:
    """Split `exp:1,shifted_exp:2,3` into its specifications, each of which starts with a name."""
    specs: list[str] = []
    for token in text.split(","):
        if specs and not token.strip()[:1].isalpha():
            specs[-1] += f",{token}"
        else:
            specs.append(token.strip())
    return specs


def draws_of(text: str, count: int, what: str) -> list[Draw]:
    """Return one distribution for each of `count` workers or servers, from one specification or `count` of them.

    Raises:
        ValueError: The number of specifications is neither 1 nor `count`.
    """
    made = []
    for spec in split(text):
        row, values = read(spec, SERVICES)
        made.append(row.make(*values))
    if len(made) not in (1, count):
        wanted = f"once or for each of {count} {what}" if count > 1 else "once"
        raise ValueError(f"must be given {wanted}; received {len(made)}")
    return made if len(made) == count else made * count


def times(draw: Draw, seed: tuple[int, ...]) -> Iterator[float]:
    """Yield an endless stream of times in seconds."""
    rng = np.random.default_rng(seed)
    while True:
        yield from draw(rng, BLOCK).tolist()


def services() -> str:
    """Return the forms of all rows for a help text."""
    return forms(SERVICES)
