"""Workers with emulated compute: processes with a small NumPy network on MNIST that sleep until their step has ended.

This makes it possible to measure more workers than cores: they share the server and the transport, but not the cores.
`python -m downpour.bench.emulated JSON` executes one run and prints a JSON object.
"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.synchronize import Barrier, Event
from typing import Any

import numpy as np

from downpour.bench.module_process import module_command, module_environment
from downpour.bench.numpy_worker import NumpyWorker, running_server
from downpour.worker.catalog.datasets import load

HIDDEN, BATCH = 100, 32
EVALUATED = 2000  # test images on which accuracy and loss are evaluated during a run
START_S = 120.0


@dataclass(frozen=True)
class Run:
    """The parameters of a run.

    Attributes:
        workers: The number of workers.
        compute_s: The mean emulated time of a step.
        drawn: The distribution of that time, `const` or `exp`.
        slow: The pairs of a worker's number and the factor by which it is slower.
        accuracy: The test accuracy at which the run ends; 0 disables this.
        seconds: The maximum duration of the run.
        learning_rate: The learning rate of the server.
        transport: The name of a transport, or `auto`.
        seed: The seed of the weights, batches and times.
        flags: Additional flags of the server.
        period: The number of local steps per push; with several, the difference of the weights is pushed.
        look_s: The seconds between two evaluations of the test loss; 0 disables them.
    """

    workers: int
    compute_s: float
    drawn: str = "const"
    slow: tuple[tuple[int, float], ...] = ()
    accuracy: float = 0.0
    seconds: float = 60.0
    learning_rate: float = 0.1
    transport: str = "auto"
    seed: int = 0
    flags: tuple[str, ...] = ()
    period: int = 1
    look_s: float = 0.0


def measured(run: Run) -> dict[str, Any]:
    """Start a server and the workers of a run.

    Returns:
        The push-pulls `per_s`, `reached_s` (None if the accuracy was not reached), the final `accuracy`, `applied`,
        `curve` (seconds, version, test loss), and per worker `updates`, the histogram `staleness`, and its `mean`.
    """
    flags = ["--workers", str(run.workers), "--learning-rate", str(run.learning_rate), *run.flags]
    with running_server(flags) as (address, _):
        command = module_command("downpour.bench.emulated", json.dumps({**asdict(run), "address": address}))
        one_thread = module_environment(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
        limit_s = START_S + run.seconds + 60
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=limit_s, env=one_thread)
    if done.returncode:
        raise RuntimeError(f"emulated workers must exit with status 0. Received: {done.returncode}.")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def weights_of(seed: int) -> np.ndarray:
    """Return Glorot-uniform initial weights `float32[79510]`."""
    draw = np.random.default_rng(seed)
    first, second = (6 / (784 + HIDDEN)) ** 0.5, (6 / (HIDDEN + 10)) ** 0.5
    return np.concatenate(
        [
            draw.uniform(-first, first, 784 * HIDDEN),
            np.zeros(HIDDEN),
            draw.uniform(-second, second, HIDDEN * 10),
            np.zeros(10),
        ]
    ).astype(np.float32)


def gradient_of(flat: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the gradient `float32[79510]` of the cross-entropy of 784-100-10 for a batch `x`, `float32[b, 784]`."""
    hidden, p = _forward(flat, x)
    p[np.arange(len(y)), y] -= 1
    p /= len(y)
    back = (p @ _parts(flat)[2].T) * hidden * (1 - hidden)
    return np.concatenate([(x.T @ back).ravel(), back.sum(0), (hidden.T @ p).ravel(), p.sum(0)])


def accuracy_of(flat: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """Return the fraction of `x` that the network classifies correctly."""
    return float((_forward(flat, x)[1].argmax(1) == y).mean())


def loss_of(flat: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """Return the mean cross-entropy for `x`."""
    p = _forward(flat, x)[1][np.arange(len(y)), y]
    return float(-np.log(np.maximum(p, 1e-30)).mean())


def _parts(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    w1, b1, w2, b2 = np.split(flat, np.cumsum([784 * HIDDEN, HIDDEN, HIDDEN * 10]))
    return w1.reshape(784, HIDDEN), b1, w2.reshape(HIDDEN, 10), b2


def _forward(flat: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    w1, b1, w2, b2 = _parts(flat)
    with np.errstate(over="ignore"):  # weights that diverge
        hidden = 1 / (1 + np.exp(-(x @ w1 + b1)))
    scores = hidden @ w2 + b2
    p = np.exp(scores - scores.max(1, keepdims=True))
    return hidden, p / p.sum(1, keepdims=True)


class _Data:
    def __init__(self) -> None:
        data = load("mnist")
        self.x, self.y = data.x_train.reshape(-1, 784), data.y_train.astype(int)
        self.x_test, self.y_test = self._scaled(data.x_test.reshape(-1, 784)), data.y_test.astype(int)

    @staticmethod
    def _scaled(pixels: np.ndarray) -> np.ndarray:
        return pixels.astype(np.float32) / np.float32(255)

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._scaled(self.x[rows]), self.y[rows]


def _work(run: dict[str, Any], index: int, data: _Data, start: Barrier, stop: Event, out: Any) -> None:
    weights = weights_of(run["seed"])
    worker = NumpyWorker(run["address"], len(weights), run["transport"], initial=weights)
    draw = np.random.default_rng((run["seed"], index))
    mean_s = run["compute_s"] * dict(map(tuple, run["slow"])).get(index, 1.0)
    step_s: Callable[[], float] = (lambda: draw.exponential(mean_s)) if run["drawn"] == "exp" else (lambda: mean_s)
    staleness: Counter[int] = Counter()
    reached_s, looked_s = None, 0.0
    flat = worker.pull().flat
    seen: list[tuple[float, int, np.ndarray]] = []
    start.wait(START_S)
    begin = time.monotonic()
    while (now := time.monotonic() - begin) < run["seconds"] and not stop.is_set():
        vector = _pushed(flat, data, draw, run)
        end_s = now + sum(step_s() for _ in range(run["period"]))
        time.sleep(max(0.0, end_s - (time.monotonic() - begin)))
        norm = float(np.linalg.norm(vector))
        pulled = worker.push_pull(vector, norm, BATCH * run["period"], run["period"])
        flat = pulled.flat
        if index == 0 and run["look_s"] and (not seen or now - seen[-1][0] >= run["look_s"]):
            seen.append((time.monotonic() - begin, pulled.versions[0], flat.copy()))
        staleness[pulled.replies[0].staleness] += 1
        if index == 0 and run["accuracy"] and now - looked_s > 0.1:
            looked_s = now
            if accuracy_of(flat, data.x_test[:EVALUATED], data.y_test[:EVALUATED]) >= run["accuracy"]:
                reached_s = time.monotonic() - begin
                stop.set()
    took_s = time.monotonic() - begin
    end = accuracy_of(flat, data.x_test, data.y_test) if index == 0 else None
    curve = [(s, version, loss_of(w, data.x_test[:EVALUATED], data.y_test[:EVALUATED])) for s, version, w in seen]
    out.put((index, sum(staleness.values()) / took_s, dict(staleness), reached_s, end, curve))
    worker.close()


def _pushed(flat: np.ndarray, data: _Data, draw: np.random.Generator, run: dict[str, Any]) -> np.ndarray:
    """Return a gradient, or the difference of the weights after some local steps."""
    if run["period"] == 1:
        return gradient_of(flat, *data.batch(draw.integers(0, len(data.x), BATCH)))
    local, η = flat.copy(), np.float32(run["learning_rate"])
    for _ in range(run["period"]):
        local -= η * gradient_of(local, *data.batch(draw.integers(0, len(data.x), BATCH)))
    return local - flat


def main(argv: list[str]) -> None:
    """Fork the workers, before this process uses gRPC, and print their results."""
    run = json.loads(argv[0])
    fork, data = multiprocessing.get_context("fork"), _Data()
    start, stop, out = fork.Barrier(run["workers"]), fork.Event(), fork.Queue()
    children = [fork.Process(target=_work, args=(run, n, data, start, stop, out)) for n in range(run["workers"])]
    for child in children:
        child.start()
    rows = sorted(out.get(timeout=START_S + run["seconds"]) for _ in children)
    for child in children:
        child.join(10)
    workers = [{"per_s": per_s, **_summary(histogram)} for _, per_s, histogram, *_ in rows]
    print(
        json.dumps(
            {
                "per_s": sum(row["per_s"] for row in workers),
                "applied": sum(row["updates"] for row in workers),
                "reached_s": rows[0][3],
                "accuracy": rows[0][4],
                "curve": rows[0][5],
                "workers": workers,
            }
        )
    )


def _summary(histogram: dict[int, int]) -> dict[str, Any]:
    updates = sum(histogram.values())
    mean = sum(tau * count for tau, count in histogram.items()) / max(1, updates)
    return {"updates": updates, "mean": mean, "staleness": {str(tau): histogram[tau] for tau in sorted(histogram)}}


if __name__ == "__main__":
    main(sys.argv[1:])
