"""Rows with real server processes over gRPC, small workers and emulated compute: C1, C10, C22, C23.

`docs/theory.md` derives each row and cites its source.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from downpour.bench.conformance.mutants import Forgetful, Repeating, one_more_slack, without_barrier
from downpour.bench.conformance.real_cluster import SteppingWorker, run_workers
from downpour.bench.conformance.row import Case, ConformanceRow, Parts
from downpour.bench.numpy_worker import running_server

SIZE = 5
STEP_S = 0.002


def c1(parts: Parts, quick: bool) -> list[Case]:
    """Gradients of −1 at a rate of 1: the weights equal their version, for any scheduling of the processes."""
    workers, steps = 3, 60 if quick else 400
    torn, seen, versions = [0], [0], []
    lock = threading.Lock()

    def body(worker: SteppingWorker) -> None:
        for _ in range(steps):
            content = float(worker.pulled.flat[0])
            pulled = worker.step(-np.ones(SIZE, np.float32))
            with lock:
                seen[0] += int(pulled.replies[0].applied_version - 1 - content)
                torn[0] += int((pulled.flat != pulled.flat[0]).any())
        with lock:
            versions.append(worker.pulled.versions[0])

    with running_server([f"--workers={workers}", "--learning-rate=1"]) as (address, _):
        done = run_workers(
            address, np.zeros(SIZE, np.float32), [body] * workers, [STEP_S, STEP_S, 5 * STEP_S], parts.worker
        )
    total = workers * steps
    reported = sum(reply.staleness for worker in done for reply in worker.replies)
    identity = (workers - 1) * total - sum(total - version for version in versions)
    return [
        Case("updates", total, max(versions)),
        Case("Σ τ reported", identity, reported),
        Case("Σ τ by content", identity, seen[0]),
        Case("pulls that mix versions", 0, torn[0]),
    ]


def c10(parts: Parts, quick: bool) -> list[Case]:
    """SSP: completed steps of real workers, one five times slower, differ by at most s + 1; τ ≤ (P − 1)(2s + 1)."""
    cases = []
    for workers, slack in ((3, 0), (3, 2)):
        counted = _Counted(workers, 30 if quick else 120)
        mode = parts.server_mode(f"ssp:{slack}")
        with running_server([f"--workers={workers}", "--learning-rate=1", f"--mode={mode}"]) as (address, _):
            waits_s = [STEP_S] * (workers - 1) + [5 * STEP_S]
            done = run_workers(address, np.zeros(SIZE, np.float32), counted.bodies, waits_s, parts.worker)
        staleness = max(reply.staleness for worker in done for reply in worker.replies)
        cases.append(Case(f"P={workers}, s={slack}: spread of clocks", slack + 1, counted.spread, 0, "at most"))
        cases.append(
            Case(f"P={workers}, s={slack}: largest τ", (workers - 1) * (2 * slack + 1), staleness, 0, "at most")
        )
    return cases


class _Counted:
    """Functions for `run_workers` that count completed steps.

    A step counts when its reply has arrived, which is after the server counted it and before the next one starts. The
    measured spread is therefore at most the server's spread plus the steps whose replies are under way.
    """

    def __init__(self, workers: int, steps: int) -> None:
        self.spread, self._begun, self._lock, self._steps = 0, [0] * workers, threading.Lock(), steps
        self._done = [0] * workers
        self.bodies: list[Callable[[SteppingWorker], None]] = [self._body(index) for index in range(workers)]

    def _body(self, index: int) -> Callable[[SteppingWorker], None]:
        def body(worker: SteppingWorker) -> None:
            for _ in range(self._steps):
                with self._lock:
                    # If this step may start, no worker has completed fewer than this worker's steps minus the
                    # slack. The server may have counted a push whose reply has not arrived yet.
                    self.spread = max(self.spread, self._done[index] + 1 - min(self._begun))
                    self._begun[index] += 1
                worker.step(np.ones(SIZE, np.float32))
                with self._lock:
                    self._done[index] += 1

        return body


def c22(parts: Parts, quick: bool) -> list[Case]:
    """Integer gradients, η = 2⁻⁷: the final weights are w₀ − η Σg, bit by bit."""
    sums = [np.zeros(SIZE) for _ in range(3)]

    def body(index: int) -> Callable[[SteppingWorker], None]:
        rng = np.random.default_rng(index)

        def push(worker: SteppingWorker) -> None:
            for _ in range(40 if quick else 200):
                gradient = rng.integers(-8, 9, SIZE).astype(np.float32)
                sums[index] += gradient
                worker.step(gradient)

        return push

    initial = np.arange(SIZE, dtype=np.float32)
    with running_server(["--workers=3", f"--learning-rate={2.0**-7}"]) as (address, _):
        # The workers leave after all have pushed; each pulls once more before.
        done = run_workers(address, initial, [body(0), body(1), body(2)], [STEP_S / 2] * 3, parts.worker)
        last = [worker.last for worker in done]
    expected = (initial - 2.0**-7 * sum(sums)).astype(np.float32)
    differences = [float(np.abs(weights - expected).max()) for weights in last]
    return [Case("largest |w_T − (w₀ − η Σg)|", 0.0, max(differences))]


def c23(parts: Parts, quick: bool) -> list[Case]:
    """BSP with four workers on batches of 2 is one worker on batches of 8."""
    rng, steps = np.random.default_rng(23), 20 if quick else 100
    x = rng.standard_normal((steps, 8, SIZE)).astype(np.float32)
    y = rng.standard_normal((steps, 8)).astype(np.float32)
    ends = []
    for workers in (4, 1):
        batch = 8 // workers

        def body(index: int, batch: int = batch) -> Callable[[SteppingWorker], None]:
            def push(worker: SteppingWorker) -> None:
                for step in range(steps):
                    rows = slice(index * batch, (index + 1) * batch)
                    error = x[step, rows] @ worker.pulled.flat - y[step, rows]
                    worker.step(x[step, rows].T @ error / np.float32(batch), batch)

            return push

        mode = parts.server_mode("bsp")
        with running_server([f"--workers={workers}", "--learning-rate=0.0625", f"--mode={mode}"]) as (address, _):
            initial = np.ones(SIZE, np.float32)
            waits_s = [STEP_S * (1 + index) / 4 for index in range(workers)]
            done = run_workers(address, initial, [body(index) for index in range(workers)], waits_s, parts.worker)
        ends.append(done[0].pulled.flat)
    difference = float(np.linalg.norm(ends[0] - ends[1]) / np.linalg.norm(ends[1]))
    return [Case("relative difference", 0.0, difference, 1e-5, "absolute")]


GOOD = Parts()
ROWS = [
    ConformanceRow(
        "C1",
        "real processes",
        "Σ τ(applied) + Σ age(in flight) = (P − 1)·T",
        c1,
        GOOD.but(worker=Forgetful),
        "weights older than reported",
    ),
    ConformanceRow(
        "C10",
        "real processes",
        "SSP: spread ≤ s + 1, τ ≤ (P−1)(2s+1)",
        c10,
        GOOD.but(server_mode=one_more_slack),
        "slack of s + 3",
    ),
    ConformanceRow(
        "C22",
        "real processes",
        "w_T = w₀ − η Σg, bit by bit",
        c22,
        GOOD.but(worker=Repeating),
        "a push sent again under a new number",
    ),
    ConformanceRow(
        "C23",
        "real processes",
        "BSP: P batches of b are one of P·b",
        c23,
        GOOD.but(server_mode=without_barrier),
        "no barrier",
    ),
]
