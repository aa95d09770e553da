"""Rows about time and staleness, in virtual time: C1 to C4, C8 to C10, C13.

`docs/theory.md` derives each row and cites its source.
"""

from __future__ import annotations

import numpy as np

from downpour.bench.conformance.mutants import (
    Doubled,
    EqualRates,
    LateAnswer,
    NoBarrier,
    NoRestart,
    OneStaler,
    SlackOneMore,
    in_lockstep,
)
from downpour.bench.conformance.row import Case, ConformanceRow, Parts
from downpour.bench.simulation.problems import Problem
from downpour.bench.simulation.service_times import times
from downpour.bench.simulation.virtual_time import Cycle, Simulation
from downpour.ps.core.push import Push, Result
from downpour.ps.core.rules.hyperparameters import Hyperparameters


class Witness(Problem):
    """Gradients of −1 and a learning rate of 1: the weights equal the version, so that a pull shows its version."""

    def __init__(self, workers: int) -> None:
        """Build a problem that has recorded no versions yet."""
        self.seen = [0] * workers

    def gradient(self, worker: int, weights: np.ndarray) -> np.ndarray:
        """Record the version that the weights equal, and return the gradient `float32[1]`."""
        self.seen[worker] = int(weights[0])
        return -np.ones(1, np.float32)


def simulated(
    parts: Parts, workers: int, service: str, updates: int, mode: str = "async", fetch_every: int = 1, seed: int = 0,
    problem: Problem | None = None,
) -> Simulation:  # fmt: skip
    """Return a simulation that has run for `updates` updates.

    Args:
        parts: The components to use.
        workers: The number of workers P.
        service: The distribution of the duration of a step, as `--service` of `downpour simulate`.
        updates: The number of updates.
        mode: The consistency mode.
        fetch_every: The number of steps between two pulls.
        seed: The seed of the service times.
        problem: The problem; None for gradients of zero.
    """
    problem = problem or Problem()
    policy = parts.consistency(mode)
    shard = parts.shard(
        problem.initial(), parts.optimizer("sgd", Hyperparameters(learning_rate=1.0), problem.dim), policy
    )
    compute = [times(draw, (seed, number)) for number, draw in enumerate(parts.draws(service, workers, "workers"))]
    simulation = parts.simulation(shard, policy, problem, compute, cycle=Cycle(1, fetch_every, 1.0))
    simulation.run(updates)
    return simulation


def c1(parts: Parts, quick: bool) -> list[Case]:
    """Σ τ(applied) + Σ age(in flight) = (P − 1)·T, with τ proved by the content of what was pulled."""
    cases = []
    for workers, service in ((4, "exp:1"), (8, "pareto:1.5"), (5, "lognormal:0,1")):
        updates, witness = (400 if quick else 4000), Witness(workers)
        policy = parts.consistency("async")
        shard = parts.shard(witness.initial(), parts.optimizer("sgd", Hyperparameters(learning_rate=1.0), 1), policy)
        compute = [times(draw, (1, n)) for n, draw in enumerate(parts.draws(service, workers, "workers"))]
        simulation = parts.simulation(shard, policy, witness, compute)
        reported, seen = [0], [0]

        def note(push: Push, result: Result, reported: list[int] = reported, seen: list[int] = seen,
                 witness: Witness = witness) -> None:  # fmt: skip
            reported[0] += result.staleness
            seen[0] += result.version - 1 - witness.seen[push.worker]

        shard.observe(note)
        simulation.run(updates)
        identity = (workers - 1) * updates - simulation.in_flight_age
        cases.append(Case(f"P={workers}, {service}: Σ τ reported", identity, reported[0]))
        cases.append(Case(f"P={workers}, {service}: Σ τ by content", identity, seen[0]))
    return cases


def c2(parts: Parts, quick: bool) -> list[Case]:
    """Equal constant service: τ = P − 1 for every push after the first P."""
    cases = []
    for workers in (2, 4, 8, 16):
        staleness = simulated(parts, workers, "const:1", 40 * workers).statistics.staleness
        cases.append(Case(f"P={workers}: pushes with τ = P − 1", 39 * workers + 1, staleness[workers - 1]))
        cases.append(Case(f"P={workers}: largest τ", workers - 1, max(staleness)))
    return cases


def c3(parts: Parts, quick: bool) -> list[Case]:
    """Exponential service: τ is geometric."""
    found = simulated(parts, 8, "exp:1", 30_000 if quick else 150_000).statistics
    staleness = found.staleness_json()
    beyond = sum(count for value, count in found.staleness.items() if value >= 8) / found.accepted
    return [
        Case("mean", 7.0, staleness["mean"], 0.05, "relative"),
        Case("variance", 56.0, staleness["var"], 0.05, "relative"),
        Case("P(τ ≥ 8)", (7 / 8) ** 8, beyond, 0.05, "relative"),
    ]


def c4(parts: Parts, quick: bool) -> list[Case]:
    """Rates 4:2:1:1: shares p_i = μ_i/Σμ and mean τ_i = 1/p_i − 1."""
    rates = (4, 2, 1, 1)
    found = simulated(parts, 4, ",".join(f"exp:{rate}" for rate in rates), 30_000 if quick else 120_000).statistics
    means, cases = found.staleness_json()["per_worker"], []
    for worker, rate in enumerate(rates):
        share = found.updates[worker] / found.accepted
        cases.append(Case(f"share of worker {worker}", rate / 8, share, 0.05, "relative"))
        cases.append(Case(f"mean τ of worker {worker}", 8 / rate - 1, means[worker], 0.05, "relative"))
    return cases


def harmonic(n: int) -> float:
    """Return the harmonic number H_n."""
    return sum(1 / i for i in range(1, n + 1))


def c8(parts: Parts, quick: bool) -> list[Case]:
    """K-sync, which cancels all but the first N of N + b: a step lasts (H_{N+b} − H_b)/μ, and longer in `backup`."""
    cases, steps = [], 1500 if quick else 10_000
    for spare in (0, 1, 2):
        run = simulated(parts, 8 + spare, "exp:1", steps, "ksync:8" if spare else "bsp")
        predicted = harmonic(8 + spare) - harmonic(spare)
        cases.append(Case(f"N=8, b={spare}: seconds a step", predicted, run.now_s / steps, 0.05, "relative"))
    for spare, simulated_s in ((1, 2.04), (2, 1.72)):
        run = simulated(parts, 8 + spare, "exp:1", steps, "backup:8")
        cases.append(Case(f"backup, b={spare}: seconds a step", simulated_s, run.now_s / steps, 0.05, "relative"))
    return cases


def c9(parts: Parts, quick: bool) -> list[Case]:
    """Asynchronous compared with synchronous: H_P times the gradients a second, P·H_P times the updates."""
    cases, gradients = [], 10_000 if quick else 80_000
    for workers in (4, 8):
        free = simulated(parts, workers, "exp:1", gradients)
        bound = simulated(parts, workers, "exp:1", gradients // workers, "bsp")
        ratio = (free.statistics.accepted / free.now_s) / (bound.statistics.accepted / bound.now_s)
        updates = (gradients / free.now_s) / (gradients // workers / bound.now_s)
        cases.append(Case(f"P={workers}: gradients a second", harmonic(workers), ratio, 0.05, "relative"))
        cases.append(Case(f"P={workers}: updates a second", workers * harmonic(workers), updates, 0.05, "relative"))
    return cases


def c10(parts: Parts, quick: bool) -> list[Case]:
    """SSP: completed clocks differ by at most s + 1; τ ≤ (P − 1)(2s + 1), which two workers' bursts attain."""
    run = simulated(parts, 3, "exp:1,exp:1,exp:3", 20_000, "ssp:2", seed=3)
    bounds = [
        Case("spread of clocks, P=3, s=2", 3, run.statistics.clock_spread, 0, "at most"),
        Case("largest τ, P=3, s=2", 10, max(run.statistics.staleness), 0, "at most"),
        Case("largest τ, P=3, s=2, attained", 10, max(run.statistics.staleness)),
    ]
    for workers, slack in ((2, 0), (5, 1), (8, 4)):
        run = simulated(parts, workers, "pareto:1.2", 5000, f"ssp:{slack}", seed=1)
        bounds += [
            Case(f"spread of clocks, P={workers}, s={slack}", slack + 1, run.statistics.clock_spread, 0, "at most"),
            Case(
                f"largest τ, P={workers}, s={slack}",
                (workers - 1) * (2 * slack + 1),
                max(run.statistics.staleness),
                0,
                "at most",
            ),
        ]
    return bounds


def c13(parts: Parts, quick: bool) -> list[Case]:
    """Fetch every k steps, push every step, round-robin: mean τ = (P − 1) + P(k − 1)/2."""
    cases = []
    for workers, every in ((4, 5), (3, 4), (8, 2)):
        # Whole rounds of k steps. The first is left out: in it no worker has been overtaken by all others yet.
        early, late = (
            simulated(parts, workers, "const:1", rounds * workers * every, fetch_every=every).statistics
            for rounds in (1, 21)
        )
        total = late.staleness - early.staleness
        mean = sum(value * count for value, count in total.items()) / total.total()
        cases.append(
            Case(f"P={workers}, k={every}", (workers - 1) + workers * (every - 1) / 2, mean, 1e-12, "absolute")
        )
    return cases


GOOD = Parts()
ROWS = [
    ConformanceRow(
        "C1",
        "virtual time",
        "Σ τ(applied) + Σ age(in flight) = (P − 1)·T",
        c1,
        GOOD.but(shard=OneStaler),
        "τ + 1 is reported",
    ),
    ConformanceRow(
        "C2",
        "virtual time",
        "constant service: τ = P − 1",
        c2,
        GOOD.but(shard=LateAnswer),
        "pull not atomic with push",
    ),
    ConformanceRow(
        "C3",
        "virtual time",
        "exponential service: τ geometric",
        c3,
        GOOD.but(draws=in_lockstep),
        "all equally fast",
    ),
    ConformanceRow("C4", "virtual time", "τ_i = 1/p_i − 1", c4, GOOD.but(draws=EqualRates), "rates ignored"),
    ConformanceRow(
        "C8",
        "virtual time",
        "K-sync takes (H_{N+b} − H_b)/μ",
        c8,
        GOOD.but(consistency=NoRestart),
        "late gradients are not cancelled",
    ),
    ConformanceRow(
        "C9",
        "virtual time",
        "async is H_P times as fast",
        c9,
        GOOD.but(consistency=NoBarrier),
        "no barrier",
    ),
    ConformanceRow(
        "C10",
        "virtual time",
        "SSP: spread ≤ s + 1, τ ≤ (P−1)(2s+1)",
        c10,
        GOOD.but(consistency=SlackOneMore),
        "slack of s + 1",
    ),
    ConformanceRow(
        "C13",
        "virtual time",
        "n_fetch = k: mean τ = (P−1) + P(k−1)/2",
        c13,
        GOOD.but(simulation=Doubled),
        "every push twice",
    ),
]
