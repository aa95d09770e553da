"""Rows about the effect of delay on gradient descent, in virtual time: C14 to C16, C18, C27.

`docs/theory.md` derives each row and cites its source.
"""

from __future__ import annotations

import math

import numpy as np

from downpour.bench.conformance.mutants import InverseOfNext, LateAnswer, OneSided
from downpour.bench.conformance.row import Case, ConformanceRow, Parts
from downpour.bench.simulation.fixed_delay import run_delayed
from downpour.bench.simulation.problems import Problem, Quadratic
from downpour.bench.simulation.service_times import times
from downpour.bench.simulation.virtual_time import Cycle
from downpour.ps.core.push import Push
from downpour.ps.core.rules.hyperparameters import Hyperparameters
from downpour.ps.core.staleness import Compensation


def delayed(parts: Parts, delay: int, η: float, updates: int, policy: Compensation | None = None) -> np.ndarray:
    """Return the trajectory `float64[updates]` of descent on w²/2 from 1 with a constant delay."""
    trajectory, problem = np.zeros(updates), Quadratic(0, 1)
    shard = parts.shard(
        problem.initial(),
        parts.optimizer("sgd", Hyperparameters(learning_rate=η), 1),
        parts.consistency("async"),
        policy,
    )

    def observe(version: int, weights: np.ndarray) -> None:
        trajectory[version - 1] = weights[0]

    run_delayed(shard, problem, updates, parts.delay(delay), 1, observe)
    return trajectory


def growth(trajectory: np.ndarray, window: int) -> float:
    """Return the growth of a trajectory within its second half.

    Args:
        trajectory: The values `float64[updates]`.
        window: The number of versions over which the largest absolute value is taken.

    Returns:
        The largest absolute value in the last `window` versions, divided by that in the first `window` versions of the
        second half; above 1 if the trajectory diverges.
    """
    late = np.abs(trajectory[len(trajectory) // 2 :])
    return float(late[-window:].max() / late[:window].max())


def limit(delay: int) -> float:
    """Return the largest stable ηh for a constant delay τ, 2 sin(π / (2(2τ + 1))) (Levin, May 1976)."""
    return 2 * math.sin(math.pi / (2 * (2 * delay + 1)))


def _around_limit(parts: Parts, delay: int, η: float, quick: bool, policy: Compensation | None = None) -> list[Case]:
    updates = (60 if quick else 200) * (delay + 1) + 100
    window = 4 * (2 * delay + 1)  # a period of the slowest oscillation
    cases = []
    for change, diverges in ((0.95, 0), (1.05, 1)):
        grown = growth(delayed(parts, delay, change * η, updates, policy), window)
        cases.append(Case(f"τ={delay}: diverges at {change:g} × {η:.4g}", diverges, float(grown > 1)))
    return cases


def c14(parts: Parts, quick: bool) -> list[Case]:
    """Stable iff ηh < 2 sin(π / (2(2τ + 1)))."""
    return [case for delay in (0, 1, 3, 7, 15) for case in _around_limit(parts, delay, limit(delay), quick)]


def c15(parts: Parts, quick: bool) -> list[Case]:
    """The step size with the fastest convergence is τ^τ/(τ+1)^(τ+1), with rate τ/(τ+1) per update."""
    cases = []
    for delay in (3, 7):
        best = delay**delay / (delay + 1) ** (delay + 1)
        steps = int(15 * math.log(10) / math.log((delay + 1) / delay))  # twice as many reduce the error to 1e-30
        rates: dict[float, float] = {}
        for change in np.arange(0.90, 1.1001, 0.01):
            trajectory = np.abs(delayed(parts, delay, change * best, 2 * steps))
            window = 8 * (delay + 1)  # the factor t of a double root varies little over so many late versions
            first, last = trajectory[steps - window : steps].max(), trajectory[-window:].max()
            rates[float(change)] = (last / first) ** (1 / steps)
        fastest = min(rates, key=lambda change: rates[change])
        cases.append(Case(f"τ={delay}: fastest η", best, fastest * best, 0.02, "relative"))
        cases.append(Case(f"τ={delay}: rate there", delay / (delay + 1), rates[fastest], 0.02, "relative"))
    return cases


def c16(parts: Parts, quick: bool) -> list[Case]:
    """If the learning rate is η₀/τ, the largest stable η₀ is 2τ sin(π / (2(2τ + 1)))."""
    found = []
    for delay in (1, 3, 7, 15):
        found += _around_limit(parts, delay, delay * limit(delay), quick, parts.inverse())
    return found


def c18(parts: Parts, quick: bool) -> list[Case]:
    """Asynchrony acts like momentum: E[Δ_{t+1}] = (1 − 1/M) E[Δ_t] − (η/M) h E[w_t]."""
    cases, runs, steps, η = [], 500 if quick else 1500, 60, 0.2
    for workers in (2, 8) if quick else (2, 4, 8, 16):
        mean = np.zeros(steps + 1)
        for seed in range(runs):
            mean += _exponential_descent(parts, workers, η * 4 / workers, steps, seed)
        mean /= runs
        moves = np.diff(mean)
        # The coefficient of E[w_t] is known; what is left is momentum.
        pull = -(η * 4 / workers) / workers * mean[1:-1]
        momentum = float((moves[:-1] @ (moves[1:] - pull)) / (moves[:-1] @ moves[:-1]))
        cases.append(Case(f"M={workers}: momentum", 1 - 1 / workers, momentum, 0.01, "absolute"))
    return cases


def _exponential_descent(parts: Parts, workers: int, η: float, steps: int, seed: int) -> np.ndarray:
    trajectory, problem = np.ones(steps + 1), Quadratic(0, workers)
    policy = parts.consistency("async")
    shard = parts.shard(problem.initial(), parts.optimizer("sgd", Hyperparameters(learning_rate=η), 1), policy)
    compute = [times(draw, (seed, n, 18)) for n, draw in enumerate(parts.draws("exp:1", workers, "workers"))]

    def observe(version: int, weights: np.ndarray) -> None:
        trajectory[version] = weights[0]

    parts.simulation(shard, policy, problem, compute, observe=observe).run(steps)
    return trajectory


class _Origin(Problem):
    """The problem of minimising x²/2 from x = 1."""

    def initial(self) -> np.ndarray:
        """Return the weights `float32[1]` with the value 1."""
        return np.ones(1, np.float32)

    def gradient(self, worker: int, weights: np.ndarray) -> np.ndarray:
        """Return the gradient, which equals the weights."""
        return weights.copy()


def c27(parts: Parts, quick: bool) -> list[Case]:
    """Elastic averaging on x²/2: stable iff α ≤ (4 − 2η)/(4 − η); an exchange does not change x̃ + x_i."""
    cases = []
    for workers, η in ((1, 0.5), (1, 1.0), (1, 1.5), (4, 1.0)):
        bound = (4 - 2 * η) / (4 - η)
        for change, diverges in ((0.95, 0), (1.05, 1)):
            grown = growth(_elastic(parts, workers, η, change * bound, 200 * workers), 8 * workers)
            what = f"P={workers}, η={η:g}: diverges at α = {change:g} × {bound:.3f}"
            cases.append(Case(what, diverges, float(grown > 1)))
    return [*cases, _exchange(parts)]


def _elastic(parts: Parts, workers: int, η: float, α: float, updates: int) -> np.ndarray:
    trajectory, problem = np.zeros(updates), _Origin()
    policy = parts.consistency(f"easgd:{α / η!r},1")
    shard = parts.shard(problem.initial(), parts.optimizer("sgd", Hyperparameters(learning_rate=η), 1), policy)

    def observe(version: int, weights: np.ndarray) -> None:
        trajectory[version - 1] = weights[0]

    compute = [times(draw, (0, n)) for n, draw in enumerate(parts.draws("const:1", workers, "workers"))]
    parts.simulation(shard, policy, problem, compute, cycle=Cycle(1, 1, η), observe=observe).run(updates)
    return trajectory


def _exchange(parts: Parts) -> Case:
    rng, size = np.random.default_rng(0), 100
    initial = rng.integers(-64, 64, size).astype(np.float32)
    policy = parts.consistency("easgd:0.5,1")
    shard = parts.shard(initial, parts.optimizer("sgd", Hyperparameters(learning_rate=0.5), size), policy)
    changed = 0.0
    for worker in range(3):
        shard.join(worker, 1)
    for seq in range(1, 4):
        for worker in range(3):
            (before, version), replica = shard.pull(), rng.integers(-64, 64, size).astype(np.float32)
            total = before.array + replica
            shard.release(before)
            shard.push(Push(worker, 1, seq, version), replica)
            (center, _), (own, _) = shard.pull(), shard.answer(worker)
            changed += float(np.abs(center.array + own.array - total).sum())
            shard.release(center)
            shard.release(own)
    return Case("change of x̃ + x_i in 9 exchanges", 0.0, changed, 1e-3, "absolute")


GOOD = Parts()
_OFF = GOOD.but(delay=lambda delay: delay + 1)
ROWS = [
    ConformanceRow("C14", "virtual time", "delay τ: stable iff ηh < 2 sin(π/(2(2τ+1)))", c14, _OFF, "a delay of τ + 1"),
    ConformanceRow("C15", "virtual time", "fastest ηh = τ^τ/(τ+1)^(τ+1), rate τ/(τ+1)", c15, _OFF, "a delay of τ + 1"),
    ConformanceRow(
        "C16",
        "virtual time",
        "η/τ: limit 2τ sin(π/(2(2τ+1)))",
        c16,
        GOOD.but(inverse=InverseOfNext),
        "η/(τ + 1)",
    ),
    ConformanceRow(
        "C18",
        "virtual time",
        "asynchrony acts like momentum 1 − 1/M",
        c18,
        GOOD.but(shard=LateAnswer),
        "pull not atomic with push",
    ),
    ConformanceRow(
        "C27",
        "virtual time",
        "elastic averaging: α ≤ (4−2η)/(4−η)",
        c27,
        GOOD.but(shard=OneSided),
        "one side moves more",
    ),
]
