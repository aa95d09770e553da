"""Rows whose results are exact or nearly exact: C22 to C24 in virtual time, and C25 and C26 about codecs.

`docs/theory.md` derives each row and cites its source.
"""

from __future__ import annotations

import numpy as np

from downpour.bench.conformance.mutants import LeakingFeedback, LostPush, OneLess, OneVersionOff, truncating_qsgd
from downpour.bench.conformance.row import Case, ConformanceRow, Parts
from downpour.bench.simulation.problems import Linear, Problem, Quadratic
from downpour.bench.simulation.service_times import times
from downpour.bench.simulation.virtual_time import Cycle
from downpour.protos.codecs import quantized
from downpour.protos.codecs.codec import codec_named
from downpour.protos.layout import Slice
from downpour.ps.core.rules.hyperparameters import Hyperparameters
from downpour.ps.core.staleness import DelayCompensation
from downpour.worker.exchange.error_feedback import ErrorFeedback


def c22(parts: Parts, quick: bool) -> list[Case]:
    """Integer gradients and η a power of 2: w_T = w₀ − η Σg, bit by bit, in every mode that averages powers of 2."""
    cases, updates = [], 300 if quick else 3000
    for mode in ("async", "ssp:2", "ringmaster:100", "kasync:2", "softsync:4", "bsp", "localsgd:3"):
        problem, policy = Linear(5, 4), parts.consistency(mode)
        rate, size = 2.0**-10, 4
        shard = parts.shard(
            problem.initial(), parts.optimizer("sgd", Hyperparameters(learning_rate=rate), size), policy
        )
        compute = [times(draw, (5, n)) for n, draw in enumerate(parts.draws("exp:1", 4, "workers"))]
        parts.simulation(shard, policy, problem, compute, cycle=Cycle(1, 1, rate)).run(updates)
        # The run ends with an update, so nothing waits for a group.
        share = {"kasync:2": 0.5, "softsync:4": 0.25, "bsp": 0.25}.get(mode, 1.0)
        buffer, _ = shard.pull()
        difference = float(np.abs(buffer.array + rate * share * problem.total).max())
        cases.append(Case(f"{mode}: largest |w_T − (w₀ − η Σg)|", 0.0, difference))
    return cases


class _Rows(Problem):
    """Least squares on fixed rows: step t of a worker uses the worker's t-th batch.

    With one worker and batches that are P times as large, step t uses the rows that all P workers used.
    """

    def __init__(self, workers: int, batch: int, dim: int = 6, steps: int = 400) -> None:
        """Draw the rows; every worker starts at its first batch."""
        self.dim, self._used, self._batch, self._workers = dim, [0] * workers, batch, workers
        rng = np.random.default_rng(23)
        self._x = rng.standard_normal((steps, 8, dim)).astype(np.float32)
        self._y = rng.standard_normal((steps, 8)).astype(np.float32)

    def gradient(self, worker: int, weights: np.ndarray) -> np.ndarray:
        """Return the mean gradient `float32[dim]` of the worker's next batch."""
        step, self._used[worker] = self._used[worker], self._used[worker] + 1
        rows = slice(worker * self._batch, (worker + 1) * self._batch)
        x, y = self._x[step, rows], self._y[step, rows]
        gradient: np.ndarray = x.T @ (x @ weights - y) / np.float32(self._batch)
        return gradient


def c23(parts: Parts, quick: bool) -> list[Case]:
    """BSP with P workers and batches of b is one worker with batches of P·b, for every optimizer."""
    cases = []
    for optimizer in ("sgd", "momentum", "adam", "adagrad"):
        ends = []
        for workers in (4, 1):
            problem = _Rows(workers, 8 // workers)
            policy = parts.consistency("bsp")
            rule = parts.optimizer(optimizer, Hyperparameters(learning_rate=0.05), problem.dim)
            shard = parts.shard(np.zeros(problem.dim, np.float32), rule, policy)
            compute = [times(draw, (2, n)) for n, draw in enumerate(parts.draws("exp:1", workers, "workers"))]
            parts.simulation(shard, policy, problem, compute).run(100 if quick else 400)
            buffer, _ = shard.pull()
            ends.append(buffer.array.copy())
        difference = float(np.linalg.norm(ends[0] - ends[1]) / np.linalg.norm(ends[1]))
        cases.append(Case(f"{optimizer}: relative difference", 0.0, difference, 1e-5, "absolute"))
    return cases


class TrueHessian(DelayCompensation):
    """Delay compensation g + H ⊙ (w − w_bak) with the diagonal of the true Hessian."""

    def __init__(self, h: float) -> None:
        """Build the compensation for the function h |w|²/2."""
        super().__init__(clip=0.0)
        self._h = np.float32(h)

    def curvature(self, gradient: np.ndarray, worker: int, batch: float, out: np.ndarray) -> None:
        """Write the diagonal of the Hessian, h for every weight, into `out`, `float32[n]`."""
        out[:] = self._h


def c24(parts: Parts, quick: bool) -> list[Case]:
    """Delay compensation with the true Hessian: the asynchronous trajectory on a quadratic is the sequential one."""
    cases, h, η, updates = [], 0.5, 0.2, 200 if quick else 1000
    for workers, service in ((1, "exp:1"), (4, "exp:1"), (16, "pareto:1.5")):
        trajectory, problem = np.zeros((updates, 3)), Quadratic(0, workers, h=h, sigma=0.1, dim=3)
        policy = parts.consistency("async")
        rule = parts.optimizer("sgd", Hyperparameters(learning_rate=η), 3)
        shard = parts.shard(problem.initial(), rule, policy, TrueHessian(h))
        compute = [times(draw, (4, n)) for n, draw in enumerate(parts.draws(service, workers, "workers"))]

        def observe(version: int, weights: np.ndarray, trajectory: np.ndarray = trajectory) -> None:
            trajectory[version - 1] = weights

        parts.simulation(shard, policy, problem, compute, observe=observe).run(updates)
        sequential, w = Quadratic(0, 1, h=h, sigma=0.1, dim=3), problem.initial()
        worst = 0.0
        for version in range(updates):
            w = w - np.float32(η) * sequential.gradient(0, w)
            worst = max(worst, float(np.abs(w - trajectory[version]).max()))
        cases.append(Case(f"P={workers}, {service}: largest difference", 0.0, worst, 1e-5, "absolute"))
    return cases


def c25(parts: Parts, quick: bool) -> list[Case]:
    """Error feedback: Σ g = Σ applied + residual; top-k keeps ‖C(x) − x‖² ≤ (1 − k/d)‖x‖²."""
    cases, rng, size = [], np.random.default_rng(25), 1000
    for name in ("topk:0.05", "int8", "bfloat16"):
        codec, feedback = codec_named(name), parts.extra.get("feedback", ErrorFeedback)(name, [Slice(0, size, 0)])
        given, applied, decoded = np.zeros(size), np.zeros(size), np.empty(size, np.float32)
        for _ in range(50 if quick else 500):
            gradient = rng.standard_normal(size).astype(np.float32)
            codec.decode(feedback.encode(0, gradient), decoded)
            given += gradient
            applied += decoded
        error = np.abs(given - applied - feedback.residuals[0]).max() / np.abs(given).max()
        cases.append(Case(f"{name}: Σg − Σapplied − residual, relative", 0.0, float(error), 1e-5, "absolute"))
    for kept in (0.01, 0.1, 0.5):
        x, out, codec = (
            rng.standard_normal(size).astype(np.float32),
            np.empty(size, np.float32),
            codec_named(f"topk:{kept}"),
        )
        codec.decode(codec.encode(x, rng), out)
        lost = float(((out - x) ** 2).sum() / (x**2).sum())
        cases.append(Case(f"top {kept:.0%}: ‖C(x) − x‖² / ‖x‖²", 1 - kept, lost, 1e-5, "at most"))
    return cases


def c26(parts: Parts, quick: bool) -> list[Case]:
    """QSGD with s levels: unbiased, E‖Q − v‖² ≤ min(d/s², √d/s)‖v‖²; int8 keeps the bound with 127 levels."""
    qsgd = parts.extra.get("qsgd", quantized.qsgd)
    rng, size, draws = np.random.default_rng(26), 400, 1000 if quick else 4000
    v = rng.standard_normal(size).astype(np.float32)
    square, codec, cases = float((v**2).sum()), codec_named("int8"), []

    def int8(v: np.ndarray, levels: int, rng: np.random.Generator) -> np.ndarray:
        out = np.empty(size, np.float32)
        codec.decode(codec.encode(v, rng), out)
        return out

    for levels, quantize in ((1, qsgd), (4, qsgd), (16, qsgd), (127, int8)):
        drawn = np.array([quantize(v, levels, rng) for _ in range(draws)], np.float64)
        variance = float(((drawn - v) ** 2).sum(axis=1).mean() / square)
        bound = min(size / levels**2, size**0.5 / levels)
        cases.append(Case(f"s={levels}: E‖Q − v‖² / ‖v‖²", bound, variance, 0.0, "at most"))
        # The expected distance of the mean of n draws from v is √(variance/n) |v|.
        bias = float(np.linalg.norm(drawn.mean(axis=0) - v) / np.sqrt(square))
        cases.append(Case(f"s={levels}: ‖E Q − v‖ / ‖v‖", 1.2 * (variance / draws) ** 0.5, bias, 1e-7, "at most"))
    return cases


GOOD = Parts()
ROWS = [
    ConformanceRow("C22", "virtual time", "w_T = w₀ − η Σg, bit by bit", c22, GOOD.but(shard=LostPush), "a lost push"),
    ConformanceRow(
        "C23",
        "virtual time",
        "BSP: P batches of b are one of P·b",
        c23,
        GOOD.but(consistency=OneLess),
        "one worker left out",
    ),
    ConformanceRow(
        "C24",
        "virtual time",
        "true Hessian: asynchronous = sequential",
        c24,
        GOOD.but(shard=OneVersionOff),
        "w_bak one version off",
    ),
    ConformanceRow(
        "C25",
        "vectors",
        "error feedback: Σg = Σapplied + residual",
        c25,
        GOOD.but(extra={"feedback": LeakingFeedback}),
        "half of the residual lost",
    ),
    ConformanceRow(
        "C26",
        "vectors",
        "QSGD: unbiased, variance bounded",
        c26,
        GOOD.but(extra={"qsgd": truncating_qsgd}),
        "rounds down",
    ),
]
