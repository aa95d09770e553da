"""Running totals of push outcomes: counts, losses, staleness and rates. Pure: the time is an argument."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from downpour.ps.core.push import Outcome, Push, Result

FAR_ABOVE, TWICE = 4.0, 2.0
LOW = 0.1  # multiples of a smaller mean loss are not significant
WINDOW_S = 5.0  # over which rates are computed


@dataclass
class Rate:
    """The growth of a total per second over the last `WINDOW_S` seconds. `of` must be called regularly."""

    _window: deque[tuple[float, int]] = field(default_factory=deque)

    def of(self, total: int, now: float) -> float:
        """Return the growth per second since the oldest value in the window."""
        self._window.append((now, total))
        while len(self._window) > 2 and self._window[1][0] <= now - WINDOW_S:
            self._window.popleft()
        since, then = self._window[0]
        return (total - then) / (now - since) if now > since else 0.0


@dataclass
class WorkerMetrics:
    """Totals of the pushes of one worker."""

    updates: int = 0
    samples: int = 0
    dropped: int = 0
    loss: float = 0.0  # of its last push
    staleness: Counter[int] = field(default_factory=Counter)
    staleness_last: int = 0


@dataclass
class EpochMetrics:
    """Sums over the samples of one epoch whose loss is finite."""

    samples: int = 0
    loss_sum: float = 0.0
    correct: int = 0

    def add(self, push: Push) -> None:
        """Add the samples of a push."""
        self.samples += push.samples
        self.loss_sum += push.loss * push.samples
        self.correct += push.correct

    @property
    def loss(self) -> float:
        """The mean loss of the samples used so far."""
        return self.loss_sum / self.samples if self.samples else float("nan")

    @property
    def accuracy(self) -> float:
        """The fraction of the samples used so far that were classified correctly."""
        return self.correct / self.samples if self.samples else float("nan")


@dataclass
class Metrics:
    """Totals of one shard. Those of shard 0 are the totals of the job."""

    updates: int = 0
    samples: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    bytes_pushed: int = 0
    bytes_pulled: int = 0
    workers: dict[int, WorkerMetrics] = field(default_factory=dict)
    epochs: dict[int, EpochMetrics] = field(default_factory=dict)
    first_s: float | None = None
    last_s: float = 0.0
    initial: EpochMetrics = field(default_factory=EpochMetrics)  # of pushes computed from the initial weights
    since: int = 0  # the first epoch of the current call of a script's `fit`

    def begin_fit(self) -> None:
        """Begin another call of `fit`: its epochs continue the count, and its losses are compared among themselves."""
        self.since = max(self.epochs, default=-1) + 1
        self.initial = EpochMetrics()

    def record(self, push: Push, result: Result, now: float) -> None:
        """Add the final outcome of a push to the totals."""
        worker = self.workers.get(push.worker)  # setdefault would create one for every push
        if worker is None:
            worker = self.workers[push.worker] = WorkerMetrics()
        samples = 0 if push.repeats else push.samples
        self.samples += samples
        worker.samples += samples
        worker.loss = push.loss
        self.last_s = now
        if self.first_s is None:
            self.first_s = now
        number = self.since + push.epoch
        epoch = self.epochs.get(number)
        if epoch is None:
            epoch = self.epochs[number] = EpochMetrics()
        if samples and not push.nonfinite and math.isfinite(push.loss):
            epoch.add(push)
            if push.base_version == 0:
                self.initial.add(push)
        if result.outcome == Outcome.APPLIED:
            self.updates += 1
            worker.updates += 1
            worker.staleness[result.staleness] += 1
            worker.staleness_last = result.staleness
        else:
            self.dropped[result.reason] += 1
            worker.dropped += 1

    @property
    def staleness(self) -> Counter[int]:
        """The histogram of staleness over all workers."""
        return sum((worker.staleness for worker in self.workers.values()), Counter())


def divergence(metrics: Metrics) -> str:
    """Return a message if the training loss shows that training diverged; else an empty string.

    Training counts as diverged if the mean loss of the last epoch is more than four times (`FAR_ABOVE`) that of the
    initial weights, or more than twice that of the first epoch. An earlier loss below `LOW`, as of weights that were
    trained before, counts as `LOW`.
    """
    means = [
        epoch.loss for number, epoch in sorted(metrics.epochs.items()) if epoch.samples and number >= metrics.since
    ]
    if not means:
        return ""
    initial, first, last = metrics.initial.loss, means[0], means[-1]
    if metrics.initial.samples and last > FAR_ABOVE * max(abs(initial), LOW):
        return f"the training loss of the last epoch is {last:.3g}; that of the initial weights was {initial:.3g}"
    if last > TWICE * max(abs(first), LOW):
        return f"the training loss of the last epoch is {last:.3g}; that of the first was {first:.3g}"
    return ""


def throughput(metrics: Metrics, started_s: float | None) -> tuple[float, float]:
    """Return the samples per second from the start of training to the last push, and the seconds between these."""
    seconds = max(0.0, metrics.last_s - started_s) if started_s is not None and metrics.first_s is not None else 0.0
    return metrics.samples / seconds if seconds else 0.0, seconds


def mean(histogram: Mapping[int, int]) -> float:
    """Return the mean of a histogram; 0 if it is empty."""
    count = sum(histogram.values())
    return sum(value * times for value, times in histogram.items()) / count if count else 0.0


def quantile(histogram: Mapping[int, int], q: float) -> int:
    """Return the smallest value at or below which a fraction q of the counts lies; 0 if the histogram is empty."""
    need, seen = q * sum(histogram.values()), 0
    for value in sorted(histogram):
        seen += histogram[value]
        if seen >= need:
            return value
    return 0


def staleness_summary(metrics: Metrics) -> dict[str, object]:
    """Return `{mean, p50, p99, max, per_worker}` of the staleness of all applied pushes."""
    total = metrics.staleness
    return {
        "mean": mean(total),
        "p50": quantile(total, 0.5),
        "p99": quantile(total, 0.99),
        "max": max(total, default=0),
        "per_worker": {
            str(number): {
                "mean": mean(worker.staleness),
                "max": max(worker.staleness, default=0),
                "updates": worker.updates,
                "histogram": {str(value): worker.staleness[value] for value in sorted(worker.staleness)},
            }
            for number, worker in sorted(metrics.workers.items())
        },
    }
