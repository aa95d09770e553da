"""Predictions of the kind of docs/theory.md's table that have no row of their own, in virtual time."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest

from downpour.bench.conformance.rows_exact import TrueHessian
from downpour.bench.simulation.fixed_delay import run_delayed
from downpour.bench.simulation.problems import Quadratic
from downpour.bench.simulation.simulate import SimulateSettings, simulate
from downpour.ps.core.apply import UpdateOptions
from downpour.ps.core.consistency import consistency_of
from downpour.ps.core.optimizer import Optimizer
from downpour.ps.core.rules.hyperparameters import Hyperparameters
from downpour.ps.core.shard import Shard

pytestmark = pytest.mark.slow

STRAGGLER = "const:1,const:1,const:1,const:5"


def run(**settings: Any) -> dict[str, Any]:
    return simulate(SimulateSettings(**settings))


def harmonic(n: int) -> float:
    return sum(1 / i for i in range(1, n + 1))


# ------------------------------------------------------------------ time


@pytest.mark.parametrize(("workers", "count"), [(8, 3), (5, 4)])
def test_kasync_has_the_throughput_of_ksync_and_geometric_staleness(workers: int, count: int) -> None:
    """Without memory, going on is as good as beginning again: H_P − H_{P−K}; an update has a worker with p = K/P."""
    p = count / workers
    result = run(workers=workers, mode=f"kasync:{count}", updates=15_000)
    assert result["virtual_time_s"] / 15_000 == pytest.approx(harmonic(workers) - harmonic(workers - count), rel=0.03)
    assert result["staleness"]["mean"] == pytest.approx(1 / p - 1, rel=0.03)
    assert result["staleness"]["var"] == pytest.approx((1 - p) / p**2, rel=0.06)
    assert result["accepted"] == count * result["updates"] and result["dropped"] == 0


def test_ksync_takes_an_order_statistic_of_any_distribution() -> None:
    """The K-th smallest of P: shift + (H_P − H_{P−K})/μ; Γ(P+1)Γ(P−K+1−1/α) / (Γ(P−K+1)Γ(P+1−1/α)) for Pareto."""
    shifted = run(workers=8, mode="ksync:3", service="shifted_exp:2,0.5", updates=8000)
    assert shifted["virtual_time_s"] / 8000 == pytest.approx(2 + 2 * (harmonic(8) - harmonic(5)), rel=0.02)
    for mode, left in (("ksync:6", 3), ("bsp", 1)):
        log = math.lgamma(9) - math.lgamma(left) + math.lgamma(left - 0.4) - math.lgamma(9 - 0.4)
        pareto = run(workers=8, mode=mode, service="pareto:2.5", updates=20_000)
        assert pareto["virtual_time_s"] / 20_000 == pytest.approx(math.exp(log), rel=0.03)


def test_a_straggler_has_the_predicted_share_and_staleness() -> None:
    result = run(workers=4, service=STRAGGLER, updates=16_000)
    assert result["updates_per_worker"] == [5000, 5000, 5000, 1000]
    assert result["staleness"]["per_worker"] == pytest.approx([2.2, 2.2, 2.2, 15], rel=0.001)


def test_the_throughput_of_each_mode_with_a_straggler() -> None:
    """SSP ends at its pace, 4 steps in 5 s; backup loses all of it."""
    bound = run(workers=4, service=STRAGGLER, updates=4000, mode="ssp:2")
    assert bound["throughput"] == pytest.approx(4 / 5, rel=0.01) and bound["clock_spread_max"] == 3
    spared = run(workers=4, service=STRAGGLER, updates=4000, mode="backup:3")
    assert spared["virtual_time_s"] == 4000
    assert spared["updates_per_worker"] == [4000, 4000, 4000, 0] and spared["dropped_by_reason"] == {"late": 800}


@pytest.mark.parametrize(("workers", "rate", "service"), [(10, 1.0, 5.0), (6, 0.5, 10.0)])
def test_a_queue_with_finitely_many_sources(workers: int, rate: float, service: float) -> None:
    """M/M/1//N from the birth-death balance; one step each in flight, so the mean staleness is still P − 1."""
    weights = [math.perm(workers, n) * (rate / service) ** n for n in range(workers + 1)]
    throughput = service * (1 - weights[0] / sum(weights))
    waiting = sum(max(0, n - 1) * weight for n, weight in enumerate(weights)) / sum(weights)
    result = run(workers=workers, service=f"exp:{rate}", server_service=f"exp:{service}", updates=60_000)
    assert result["throughput"] == pytest.approx(throughput, rel=0.02)
    assert result["mean_queue_wait_s"] == pytest.approx(waiting / throughput, rel=0.05)
    assert result["staleness"]["mean"] == pytest.approx(workers - 1, rel=0.01)


@pytest.mark.parametrize(("server", "wait_s"), [("const:1", 0.5), ("exp:1", 1.0)])
def test_many_slow_workers_are_a_poisson_stream(server: str, wait_s: float) -> None:
    """M/D/1 waits ρD/(2(1 − ρ)), M/M/1 twice as long; 400 sources at ρ = 1/2 wait a little less."""
    result = run(workers=400, service="exp:0.00125", server_service=server, updates=60_000)
    assert result["mean_queue_wait_s"] == pytest.approx(wait_s, rel=0.1)


# ------------------------------------------------------------------ staleness


@pytest.mark.parametrize(("workers", "count"), [(8, 3), (16, 4), (5, 7)])
def test_softsync_divides_staleness_by_the_group(workers: int, count: int) -> None:
    """N pushes between two of a worker's own, N geometric, the first at any place of its group: mean (P − 1)/c."""
    share = np.zeros(2000)
    for place in range(count):
        for between in range(2000):
            staleness = math.ceil((place + between + 1) / count) - 1
            share[staleness] += (1 - 1 / workers) ** between / workers / count
    values = np.arange(len(share))
    mean = values @ share
    result = run(workers=workers, mode=f"softsync:{count}", updates=30_000 // count)["staleness"]
    assert mean == pytest.approx((workers - 1) / count, rel=1e-6)
    assert result["mean"] == pytest.approx(mean, rel=0.01)
    assert result["var"] == pytest.approx(values**2 @ share - mean**2, rel=0.05)


def test_ringmaster_of_one_applies_only_fresh_gradients() -> None:
    """A chain over how many workers have the newest weights, m: a push is applied with p = m/P, and leaves m = 1."""
    workers = 5
    move = np.zeros((workers, workers))
    for fresh in range(1, workers + 1):
        move[fresh - 1, 0] += fresh / workers
        if fresh < workers:
            move[fresh - 1, fresh] += 1 - fresh / workers
    share = np.linalg.matrix_power(move, 500)[0] @ (np.arange(1, workers + 1) / workers)
    result = run(workers=workers, mode="ringmaster:1", updates=20_000)
    assert result["accepted"] / (result["accepted"] + result["dropped"]) == pytest.approx(share, rel=0.02)
    assert result["updates_per_s"] == pytest.approx(share * workers, rel=0.02)


def test_rennala_collects_among_discarded_gradients() -> None:
    """The same chain, but an update takes S of them; who has pushed a fresh gradient has fresh weights still."""
    workers, count = 6, 4

    @cache
    def pushes(fresh: int, collected: int) -> float:
        if collected == count:
            return 0.0
        stale = 0.0 if fresh == workers else (1 - fresh / workers) * pushes(fresh + 1, collected)
        return 1 + fresh / workers * pushes(fresh, collected + 1) + stale

    result = run(workers=workers, mode=f"rennala:{count}", updates=10_000)
    assert (result["accepted"] + result["dropped"]) / 10_000 == pytest.approx(pushes(1, 0), rel=0.02)
    assert result["virtual_time_s"] / 10_000 == pytest.approx(pushes(1, 0) / workers, rel=0.02)


@pytest.mark.parametrize(("workers", "push", "fetch"), [(4, 1, 5), (4, 2, 6), (3, 3, 9), (2, 4, 4)])
def test_pushing_less_often_shortens_a_cycle_of_fetches(workers: int, push: int, fetch: int) -> None:
    """C13 with k = n_fetch/n_push pushes from pull to pull: mean τ = (P − 1) + P(k − 1)/2."""
    cycle = workers * fetch // push
    sums, counts = [], []
    for updates in (cycle, 21 * cycle):
        result = run(workers=workers, service="const:1", push_every=push, fetch_every=fetch, updates=updates)
        sums.append(sum(int(value) * count for value, count in result["staleness"]["histogram"].items()))
        counts.append(result["accepted"])
    mean = (sums[1] - sums[0]) / (counts[1] - counts[0])
    assert mean == pytest.approx(workers - 1 + workers * (fetch // push - 1) / 2, abs=1e-12)


def test_fetching_at_each_step_leaves_only_the_staleness_of_one_step() -> None:
    """All push at once, after 5 steps, from weights one step old: 0 to P − 1 by turns."""
    result = run(workers=4, service="const:1", push_every=5, fetch_every=1, updates=400)
    assert result["staleness"]["histogram"] == {"0": 100, "1": 100, "2": 100, "3": 100}
    assert result["virtual_time_s"] == 500


@pytest.mark.parametrize(("push", "fetch"), [(5, 1), (2, 3), (3, 2), (4, 4)])
def test_no_gradient_is_lost_with_any_intervals(push: int, fetch: int) -> None:
    result = run(problem="linear", learning_rate=2.0**-8, workers=1, push_every=push, fetch_every=fetch, updates=500)
    assert result["largest_difference"] == 0.0


# ------------------------------------------------------------------ trajectories


def variance(ηh: float, delay: int, momentum: float = 0.0) -> float:
    """Of w_{t+1} = w_t − ηh w_{t−τ} + μ(w_t − w_{t−1}) + n_t with noise of variance 1: ∫ |…|^−2 over the circle."""
    z = np.exp(1j * np.linspace(-np.pi, np.pi, 200_001)[:-1])
    return float(np.mean(1 / np.abs(z - 1 - momentum + momentum / z + ηh * z**-delay) ** 2))


@pytest.mark.parametrize(("delay", "η"), [(0, 0.3), (3, 0.1), (7, 0.1)])
def test_noise_with_a_constant_delay(delay: int, η: float) -> None:
    problem: dict[str, Any] = {"problem": "quadratic:h=1,sigma=0.5,dim=4", "learning_rate": η, "updates": 60_000}
    expected = variance(η, delay) * (0.5 * η) ** 2
    assert run(fixed_delay=delay, **problem)["var"] == pytest.approx(expected, rel=0.05)
    assert run(workers=delay + 1, service="const:1", **problem)["var"] == pytest.approx(expected, rel=0.05)


def test_noise_with_momentum() -> None:
    result = run(workers=1, optimizer="momentum", momentum=0.9, problem="quadratic:h=1,sigma=0.5,dim=4", updates=60_000)
    assert result["var"] == pytest.approx(variance(0.1, 0, 0.9) * 0.05**2, rel=0.05)


@pytest.mark.parametrize("mode", ["bsp", "rennala:4", "ksync:4", "backup:4"])
def test_averaging_four_fresh_gradients_divides_the_noise_by_four(mode: str) -> None:
    """Σ over a group of 4: ησ²/4 / (h(2 − ηh))."""
    workers = 4 if mode == "bsp" else 8
    problem = "quadratic:h=1,sigma=0.5,dim=4"
    result = run(workers=workers, mode=mode, problem=problem, learning_rate=0.2, updates=20_000)
    assert result["var"] == pytest.approx(0.2 * 0.25 / 4 / 1.8, rel=0.05)


@pytest.mark.parametrize(
    ("policy", "scale"),
    [("none", 1.0), ("delay_adaptive", 4 / 15), ("delay_adaptive:20", 1 / 6), ("delay_adaptive:drop", 0.0)],
)
def test_the_weight_of_a_straggler_with_a_staleness_of_15(policy: str, scale: float) -> None:
    """Its optimum is 1, that of 15 pushes of the others 0: s/(15 + s), s = P/τ, or 1/(4Lτη) with L = 20, η = 1/200."""
    result = run(
        workers=4, service=STRAGGLER, staleness_policy=policy, learning_rate=0.005, updates=40_000,
        problem="quadratic:h=1,centers=0,0,0,1",
    )  # fmt: skip
    assert result["mean"] == pytest.approx(scale / (15 + scale), rel=0.01, abs=1e-9)
    assert not result["diverged"]
    assert result["updates_per_worker"][3] == (0 if policy.endswith("drop") else 2500)


@pytest.mark.parametrize(
    ("workers", "delay", "mode"), [(1, 7, "async"), (4, 20, "async"), (1, 50, "ssp:3"), (4, 9, "softsync:2")]
)
def test_the_true_hessian_undoes_a_constant_delay(workers: int, delay: int, mode: str) -> None:
    h, η, group, trajectory = 0.5, np.float32(0.2), 2 if mode == "softsync:2" else 1, []
    problem, sequential = (Quadratic(0, workers, h=h, sigma=0.1, dim=3) for _ in range(2))
    shard = Shard(
        problem.initial(),
        Optimizer("sgd", Hyperparameters(learning_rate=0.2), 3),
        consistency_of(mode),
        TrueHessian(h),
        options=UpdateOptions(version_depth=delay // workers + 2),
    )  # fmt: skip
    run_delayed(shard, problem, 300, delay, workers, lambda version, weights: trajectory.append(weights.copy()))
    w = sequential.initial()
    for reached in trajectory:
        w = w - η * sum((sequential.gradient(0, w) for _ in range(group)), np.zeros(3, np.float32)) / np.float32(group)
        np.testing.assert_allclose(reached, w, atol=1e-5)
    assert shard.uncorrected == 0


@pytest.mark.parametrize(
    "problem", ["logistic", "quadratic:h=1,centers=0,1,2,3", "quadratic:h=1,sigma=3", "quadratic:h=1"]
)
def test_a_noisy_run_that_settles_has_not_diverged(problem: str) -> None:
    for seed in range(6):
        assert not run(problem=problem, updates=2000, seed=seed)["diverged"], seed


@pytest.mark.parametrize(("change", "diverges"), [(0.95, False), (1.05, True)])
def test_divergence_is_distinguished_from_noise(change: float, diverges: bool) -> None:
    limit = 2 * math.sin(math.pi / (2 * (2 * 3 + 1)))
    problem = "quadratic:h=1,sigma=0.1"
    assert run(fixed_delay=3, problem=problem, learning_rate=change * limit, updates=2000)["diverged"] is diverges
