"""The rows of the conformance suite: each has a prediction, a measurement, and a mutant that must fail it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from downpour.bench.conformance.real_cluster import SteppingWorker
from downpour.bench.simulation.service_times import Draw, draws_of
from downpour.bench.simulation.virtual_time import Simulation
from downpour.ps.core.consistency import consistency_of
from downpour.ps.core.consistency_base import Consistency
from downpour.ps.core.optimizer import Optimizer
from downpour.ps.core.shard import Shard
from downpour.ps.core.staleness import Compensation, Inverse

Rule = Literal["relative", "absolute", "at most", "equal"]


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison of a row: a prediction and a measurement.

    Attributes:
        what: The description of the compared quantity.
        predicted: The value that theory predicts.
        measured: The measured value.
        tolerance: The allowed difference.
        rule: The comparison: `relative` and `absolute` allow a difference of `tolerance`; `at most` requires a
            measurement of at most the prediction plus `tolerance`; `equal` requires the same value.
    """

    what: str
    predicted: float
    measured: float
    tolerance: float = 0.0
    rule: Rule = "equal"

    @property
    def passed(self) -> bool:
        """Whether the measurement agrees with the prediction."""
        difference = abs(self.measured - self.predicted)
        if not math.isfinite(self.measured):
            return False
        if self.rule == "relative":
            return bool(difference <= self.tolerance * abs(self.predicted))
        if self.rule == "absolute":
            return bool(difference <= self.tolerance)
        if self.rule == "at most":
            return bool(self.measured <= self.predicted + self.tolerance)
        return bool(self.measured == self.predicted)


@dataclass(frozen=True, slots=True)
class Parts:
    """The components that rows use. A mutant is a copy of the default in which one component has a fault."""

    shard: type[Shard] = Shard
    simulation: type[Simulation] = Simulation
    consistency: Callable[[str], Consistency] = consistency_of
    optimizer: type[Optimizer] = Optimizer
    inverse: type[Compensation] = Inverse
    draws: Callable[[str, int, str], list[Draw]] = draws_of
    worker: type[SteppingWorker] = SteppingWorker
    delay: Callable[[int], int] = lambda delay: delay
    server_mode: Callable[[str], str] = lambda mode: mode
    extra: dict[str, Any] = field(default_factory=dict)

    def but(self, **changed: Any) -> Parts:
        """Return a copy with some parts replaced."""
        return replace(self, **changed)


@dataclass(frozen=True, slots=True)
class ConformanceRow:
    """A row of the conformance suite.

    Attributes:
        name: The name in docs/theory.md.
        where: Whether it runs in virtual time, with real server processes, or on vectors only.
        claim: The prediction in one line.
        measure: A function that returns the cases, given the parts and whether to use shorter runs.
        mutant: The parts with which the row must fail.
        fault: The fault of these parts.
    """

    name: str
    where: Literal["virtual time", "real processes", "vectors"]
    claim: str
    measure: Callable[[Parts, bool], list[Case]]
    mutant: Parts
    fault: str
