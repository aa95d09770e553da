"""The registry of learning-rate schedules: factors on η by version, after an optional linear warm-up.

The learning rates of a script are tables, which its worker 0 replaces while the job runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest
from downpour.ps.core.registry import Parameter, positive, read, whole_number

Schedule = Callable[[int], float]


@dataclass(frozen=True, slots=True)
class ScheduleShape:
    """A row of the registry of schedules.

    Attributes:
        doc: A phrase that describes the schedule.
        make: A function from the parameters' values to the factor by version, counted from the end of the warm-up.
        parameters: The parameters that follow the colon.
    """

    doc: str
    make: Callable[..., Schedule]
    parameters: tuple[Parameter, ...] = ()


def _constant() -> Schedule:
    return lambda version: 1.0


def _linear(versions: int, floor: float) -> Schedule:
    return lambda version: floor + (1.0 - floor) * max(0.0, 1.0 - version / versions)


def _cosine(versions: int, floor: float) -> Schedule:
    """Loshchilov, Hutter 2017: f + (1 − f)(1 + cos(πt/T))/2, and f after T."""
    return lambda version: floor + (1.0 - floor) * (1.0 + math.cos(math.pi * min(1.0, version / versions))) / 2.0


def _steps(every: int, factor: float) -> Schedule:
    return lambda version: factor ** (version // every)


def _exponential(versions: int, factor: float) -> Schedule:
    return lambda version: factor ** (version / versions)


def _inverse_root(versions: int) -> Schedule:
    return lambda version: (1.0 + version / versions) ** -0.5


_FLOOR = positive("FLOOR", default="0", or_zero=True)

SCHEDULES: dict[str, ScheduleShape] = {
    "constant": ScheduleShape("η throughout", _constant),
    "linear": ScheduleShape("from η down to FLOOR·η at version T", _linear, (whole_number("T", 1), _FLOOR)),
    "cosine": ScheduleShape("the same along half a cosine", _cosine, (whole_number("T", 1), _FLOOR)),
    "steps": ScheduleShape(
        "times FACTOR after every T versions", _steps, (whole_number("T", 1), positive("FACTOR", "0.1"))
    ),
    "exponential": ScheduleShape(
        "times FACTOR by T versions, smoothly", _exponential, (whole_number("T", 1), positive("FACTOR", "0.1"))
    ),
    "inverse_root": ScheduleShape("η / √(1 + version/T)", _inverse_root, (whole_number("T", 1),)),
}


def schedule_of(schedule: str, warm_up: int = 0) -> Schedule:
    """Return the factor on η by version for a value of `--schedule`.

    Args:
        schedule: A row of the registry with its values.
        warm_up: The number of versions over which η rises linearly from η/warm_up to η before the schedule begins.

    Raises:
        ValueError: The value names no schedule, or its parameters are invalid.
    """
    row, values = read(schedule, SCHEDULES)
    shape: Schedule = row.make(*values)
    if not warm_up:
        return shape
    return lambda version: (version + 1) / warm_up if version < warm_up else shape(version - warm_up)


class RateTable:
    """The learning rate η of an optimizer by the number of its updates, with linear interpolation between some."""

    def __init__(self, rates: pb.LearningRates) -> None:
        """Create a table from one that `check_rates` has accepted."""
        self._updates = np.array(rates.updates, np.float64)
        self._rates = np.array(rates.rates, np.float64)

    def __call__(self, updates: int) -> float:
        """Return the learning rate of the next update of an optimizer that has made so many."""
        return float(np.interp(updates, self._updates, self._rates))


def check_rates(rates: pb.LearningRates) -> None:
    """Raise InvalidRequest unless the table is valid."""
    updates, values = list(rates.updates), list(rates.rates)
    ascending = all(a < b for a, b in zip(updates, updates[1:], strict=False))
    if not updates or len(updates) != len(values) or not ascending:
        raise InvalidRequest(
            "learning rates must come with as many ascending numbers of updates, one or more; received "
            f"{len(updates)} numbers and {len(values)} rates."
        )
    if not all(math.isfinite(value) and value >= 0 for value in values):
        raise InvalidRequest(f"learning rates must be finite and at least 0; received {min(values)} to {max(values)}.")
