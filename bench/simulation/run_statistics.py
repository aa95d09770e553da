"""The statistics of a run in virtual time: outcomes, staleness, clocks, and the trajectory of the weights."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from downpour.ps.core.push import Outcome, Push, Result


class OutcomeStatistics:
    """The outcomes of pushes, the staleness and the clocks of the workers.

    Attributes:
        accepted: The number of pushes that became part of an update.
        dropped: The number of other pushes, by reason.
        staleness: The number of accepted pushes by staleness.
        updates: The number of accepted pushes of each worker.
        clock_spread: The largest difference between the clocks of two workers.
        wait_s: The sum of the times that pushes waited for the server.
    """

    def __init__(self, workers: int) -> None:
        """Build empty statistics for `workers` workers."""
        self.accepted = self.pushes = self.clock_spread = 0
        self.wait_s = 0.0
        self.dropped: Counter[str] = Counter()
        self.staleness: Counter[int] = Counter()
        self.updates, self.stale_sum = [0] * workers, [0] * workers
        self._clocks, self._at, self._least, self._most = [0] * workers, Counter({0: workers}), 0, 0

    def outcome(self, push: Push, result: Result) -> None:
        """Count the final outcome of a push."""
        if result.outcome == Outcome.APPLIED:
            self.accepted += 1
            self.staleness[result.staleness] += 1
            self.updates[push.worker] += 1
            self.stale_sum[push.worker] += result.staleness
        else:
            self.dropped[result.reason] += 1

    def tick(self, worker: int) -> None:
        """Advance the clock of a worker that has completed a step."""
        self.pushes += 1
        clock = self._clocks[worker] + 1
        self._clocks[worker] = clock
        self._at[clock] += 1
        self._at[clock - 1] -= 1
        if clock > self._most:
            self._most = clock
        while not self._at[self._least]:
            del self._at[self._least]
            self._least += 1
        self.clock_spread = max(self.clock_spread, self._most - self._least)

    def staleness_json(self) -> dict[str, Any]:
        """Return mean, variance, maximum and histogram of the staleness, and the mean of each worker."""
        values = np.array(sorted(self.staleness), float)
        weights = np.array([self.staleness[int(value)] for value in values], float)
        mean = float(values @ weights / weights.sum()) if len(values) else 0.0
        variance = float((values - mean) ** 2 @ weights / weights.sum()) if len(values) else 0.0
        return {
            "mean": mean,
            "var": variance,
            "max": int(values[-1]) if len(values) else 0,
            "histogram": {str(value): self.staleness[value] for value in sorted(self.staleness)},
            "per_worker": [
                total / count if count else 0.0 for total, count in zip(self.stale_sum, self.updates, strict=True)
            ],
        }


class Trajectory:
    """Statistics of the weights over the versions of a run.

    A run has diverged if a weight is not finite, or if the distance to the optimum grows: its mean square over the last
    quarter of the run exceeds that over the second quarter, and is not just a rounding error of the initial distance.
    With noisy gradients, for which the distance fluctuates, it must grow threefold from the second quarter to the third
    and again to the fourth, and exceed the initial distance.
    """

    def __init__(
        self, optimum: np.ndarray | None, initial: np.ndarray, updates: int, burn_in: float, noisy: bool
    ) -> None:
        """Create statistics to which no update has been added.

        Args:
            optimum: The optimum `float64[d]`, or None if there is none.
            initial: The initial weights `float32[d]`.
            updates: The number of updates of the run.
            burn_in: The fraction of the updates that mean and variance exclude.
            noisy: Whether gradients are noisy.
        """
        self._optimum = optimum
        self._from, self._quarter, self._noisy = burn_in * updates, updates / 4, noisy
        self._count, self._sum, self._squares = 0, np.zeros(len(initial)), np.zeros(len(initial))
        self._distances = [0.0] * 5
        self._counts = [0] * 5
        self._start = 0.0 if optimum is None else float(((initial - optimum) ** 2).sum())
        self.last = initial.astype(float)
        self.finite = True

    def observe(self, version: int, weights: np.ndarray) -> None:
        """Add the weights `float32[d]` of a version."""
        w = weights.astype(np.float64)
        self.last = w
        if version > self._from:
            self._count += 1
            self._sum += w
            self._squares += w * w
        if self._optimum is not None:
            quarter = min(4, int(version / self._quarter))
            offset = w - self._optimum
            square = float(offset @ offset)
            self.finite = self.finite and square < 1e60
            self._distances[quarter] += square if self.finite else 0.0
            self._counts[quarter] += 1

    @property
    def diverged(self) -> bool:
        """Whether the run has diverged, as defined above."""
        if not self.finite:
            return True
        early, middle, late = (self._distances[q] / max(1, self._counts[q]) for q in (1, 2, 3))
        if self._noisy:
            return middle > 3.0 * early and late > 3.0 * middle and late > self._start
        return late > early and late > 1e-6 * self._start

    def json(self) -> dict[str, Any]:
        """Return `mean` and `var` over versions and weights, `distance`, `final` and `diverged`."""
        count = max(1, self._count)
        with np.errstate(all="ignore"):
            mean = self._sum / count
            variance = np.maximum(self._squares / count - mean * mean, 0.0)
        numbers = {"mean": float(mean.mean()), "var": float(variance.mean())}
        final = self.last.tolist() if len(self.last) <= 16 else None
        kept: dict[str, Any] = {key: value if np.isfinite(value) else None for key, value in numbers.items()}
        if self._optimum is not None:
            kept["distance"] = float(np.sqrt(((self.last - self._optimum) ** 2).sum())) if self.finite else None
        return {**kept, "final": final if self.finite else None, "diverged": self.diverged}
