"""What push outcomes add up to."""

from __future__ import annotations

import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downpour.ps.core.push import Outcome, Push, Result
from downpour.ps.trace.metrics import WINDOW_S, Metrics, Rate, divergence, mean, quantile, staleness_summary, throughput


def applied(staleness: int = 0) -> Result:
    return Result(Outcome.APPLIED, 1, staleness, 0.1)


def push(worker: int = 0, samples: int = 10, **fields: object) -> Push:
    return Push(worker, 1, 1, 0, samples=samples, **fields)  # type: ignore[arg-type]


def test_totals_by_worker_epoch_and_outcome() -> None:
    metrics = Metrics()
    metrics.record(push(0, 30, loss=1.0, correct=15), applied(0), 1.0)
    metrics.record(push(1, 10, loss=3.0, correct=5), applied(4), 2.0)
    metrics.record(push(1, 10, epoch=1, nonfinite=True), Result(Outcome.DROPPED, 2, 1, reason="nonfinite"), 3.0)
    assert (metrics.updates, metrics.samples, dict(metrics.dropped)) == (2, 50, {"nonfinite": 1})
    assert (metrics.first_s, metrics.last_s) == (1.0, 3.0)
    assert metrics.epochs[0].loss == pytest.approx(1.5) and metrics.epochs[0].accuracy == 0.5
    assert metrics.epochs[1].samples == 0 and math.isnan(metrics.epochs[1].loss)
    second = metrics.workers[1]
    assert (second.updates, second.samples, second.dropped, second.staleness_last) == (1, 20, 1, 4)
    assert metrics.staleness == {0: 1, 4: 1}


def test_the_samples_of_a_train_step_with_two_pushes_count_once() -> None:
    metrics = Metrics()
    metrics.record(push(samples=8, loss=1.0), applied(), 1.0)
    metrics.record(push(samples=8, loss=3.0, repeats=True), applied(), 2.0)
    assert (metrics.updates, metrics.samples, metrics.workers[0].samples, metrics.epochs[0].samples) == (2, 8, 8, 8)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_of_nan_is_excluded_from_the_mean(loss: float) -> None:
    metrics = Metrics()
    metrics.record(push(loss=2.0), applied(), 0.0)
    metrics.record(push(loss=loss), applied(), 0.0)
    assert metrics.epochs[0].loss == 2.0


@pytest.mark.parametrize(
    ("losses", "says"),
    [
        ([2.3, 1.0, 0.5], ""),
        ([2.3, 3.0, 2.5], ""),  # not good, and not that bad
        ([], ""),
        ([2.3, 1.7e10], "is 1.7e\\+10; that of the initial weights was 2.3"),
        ([2.3, 0.5, 1.5], "is 1.5; that of the first was 0.5"),
    ],
)
def test_a_loss_far_above_where_it_began_is_divergence(losses: list[float], says: str) -> None:
    """The first is that of the initial weights; the others are epochs'."""
    metrics = Metrics()
    for epoch, loss in enumerate(losses, -1):
        base = 0 if epoch < 0 else 7
        metrics.record(Push(0, 1, 1, base, samples=1 + 99 * (epoch >= 0), epoch=max(epoch, 0), loss=loss), applied(), 0)
    if len(losses) > 1:
        metrics.epochs[0].loss_sum -= losses[0]  # 100 samples alone
        metrics.epochs[0].samples -= 1
    assert re.search(says, divergence(metrics)) if says else divergence(metrics) == ""


def test_the_rate_is_that_of_the_last_seconds() -> None:
    window, total = Rate(), 0
    assert window.of(0, 0.0) == 0.0
    for second in range(20):
        total += 100 if second < 10 else 10
        rate = window.of(total, second + 1.0)
    assert rate == pytest.approx(10.0)
    assert window.of(total, 20.0 + 2 * WINDOW_S) == pytest.approx(0.0, abs=5.0)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_mean_and_quantile_of_a_histogram_are_those_of_its_values(values: list[int], q: float) -> None:
    histogram = {value: values.count(value) for value in values}
    assert mean(histogram) == pytest.approx(sum(values) / len(values))
    assert quantile(histogram, q) == sorted(values)[max(1, math.ceil(q * len(values))) - 1]


def test_an_empty_job_has_a_summary_that_is_json() -> None:
    summary = staleness_summary(Metrics())
    assert json.loads(json.dumps(summary)) == {"mean": 0.0, "p50": 0, "p99": 0, "max": 0, "per_worker": {}}


def test_the_summary_tells_each_worker_apart() -> None:
    metrics = Metrics()
    for staleness in (1, 1, 3):
        metrics.record(push(0), applied(staleness), 0.0)
    metrics.record(push(7), applied(5), 0.0)
    summary = staleness_summary(metrics)
    assert (summary["mean"], summary["p50"], summary["max"]) == (2.5, 1, 5)
    per_worker = summary["per_worker"]
    assert isinstance(per_worker, dict) and list(per_worker) == ["0", "7"]
    assert per_worker["0"] == {"mean": pytest.approx(5 / 3), "max": 3, "updates": 3, "histogram": {"1": 2, "3": 1}}


def test_the_throughput_counts_from_the_start_of_training_to_the_last_push() -> None:
    metrics = Metrics()
    assert throughput(metrics, None) == throughput(metrics, 3.0) == (0.0, 0.0)
    metrics.record(push(samples=30), applied(), 5.0)
    metrics.record(push(samples=50), applied(), 7.0)
    assert throughput(metrics, 3.0) == (20.0, 4.0)
