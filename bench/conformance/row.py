"""What a row of the conformance suite is: a prediction, a measurement, and the parts that a mutant replaces."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from downpour.bench.conformance.real_cluster import SteppingWorker
from downpour.bench.simulation.service_times import Draw, draws_of
from downpour.bench.simulation.virtual_time import Simulation
from downpour.ps.core.consistency import Consistency, consistency_of
from downpour.ps.core.optimizer import Optimizer
from downpour.ps.core.shard import Shard
from downpour.ps.core.staleness import Compensation, Inverse

Rule = Literal["relative", "absolute", "at most", "equal"]


@dataclass(frozen=True, slots=True)
class Case:
    """One number of a row.

    Attributes:
        what: What it is of.
        predicted: By theory.
        measured: By the row.
        tolerance: By which they may differ.
        rule: How they are compared.
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
    """What rows are built from; a mutant is a set of parts with one that is wrong."""

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
        """The same with some parts replaced."""
        return replace(self, **changed)


@dataclass(frozen=True, slots=True)
class ConformanceRow:
    """A row of the table.

    Attributes:
        name: As in docs/theory.md.
        where: It runs: in virtual time, against real server processes, or on vectors alone.
        claim: What theory predicts, in a line.
        measure: Gives the cases, from the parts and whether time is short.
        mutant: Parts that must fail.
        fault: What is wrong with them.
    """

    name: str
    where: Literal["virtual time", "real processes", "vectors"]
    claim: str
    measure: Callable[[Parts, bool], list[Case]]
    mutant: Parts
    fault: str
