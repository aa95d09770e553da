"""`downpour bench staleness`: measures the staleness of gradients and its effect on training.

- *Distribution*: NumPy workers with exponential emulated steps and a real server, with equal rates and with rates
  4:2:1:1. The prediction is P(τ = k) = (1/P)(1 − 1/P)^k for equal rates, and mean τ_i = 1/p_i − 1 for others.
- *Imposed*: the server's shard, optimizer and compensations in one process; every gradient of the network 784-100-10 on
  MNIST has a fixed staleness. The accuracy is that on the test set after a fixed number of updates.
- *Modes*: eight NumPy workers, one of them five times slower, and a real server for a fixed time: push-pulls/s and the
  final accuracy.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from downpour.bench import report
from downpour.bench.emulated import BATCH, Run, accuracy_of, gradient_of, loss_of, measured, weights_of
from downpour.bench.flags import FlagParser
from downpour.bench.machine import load
from downpour.bench.simulation.fixed_delay import run_delayed
from downpour.bench.simulation.problems import Problem
from downpour.protos.system.progress import tracked
from downpour.ps.core.apply import UpdateOptions
from downpour.ps.core.consistency import consistency_of
from downpour.ps.core.optimizer import Optimizer
from downpour.ps.core.rules.hyperparameters import Hyperparameters
from downpour.ps.core.shard import Shard
from downpour.ps.core.staleness import compensation_of
from downpour.worker.catalog.datasets import load as load_dataset

COMPENSATIONS = ("none", "inverse", "delay_adaptive", "dc_asgd", "dc_asgd:1b", "dc_asgd_adaptive")
MODES = ("async", "ssp:3", "softsync:4", "kasync:4", "backup:7", "bsp")
SHARES = (4, 2, 1, 1)


class Network(Problem):
    """The network 784-100-10 on MNIST."""

    batch = BATCH

    def __init__(self, seed: int) -> None:
        """Load MNIST, on which the network is trained."""
        data = load_dataset("mnist")
        self._x, self._y = data.x_train.reshape(-1, 784), data.y_train.astype(int)
        self.x_test = data.x_test.reshape(-1, 784).astype(np.float32) / np.float32(255)
        self.y_test = data.y_test.astype(int)
        self._draw, self._initial = np.random.default_rng(seed), weights_of(seed)
        self.dim = len(self._initial)

    def initial(self) -> np.ndarray:
        """Return Glorot-uniform initial weights `float32[79510]`."""
        return self._initial

    def gradient(self, worker: int, weights: np.ndarray) -> np.ndarray:
        """Return the mean gradient `float32[79510]` of a batch drawn with replacement."""
        rows = self._draw.integers(0, len(self._x), BATCH)
        return gradient_of(weights, self._x[rows].astype(np.float32) / np.float32(255), self._y[rows])

    def tested(self, weights: np.ndarray) -> tuple[float, float]:
        """Return loss and accuracy on the test set."""
        return loss_of(weights, self.x_test, self.y_test), accuracy_of(weights, self.x_test, self.y_test)


def main(argv: list[str]) -> int:
    """Measure, print the tables, and write the report if requested."""
    flags = _flags(argv)
    results = report.results_header("staleness", argv)
    results["distribution"] = distribution(flags)
    results["imposed"] = imposed(flags)
    results["modes"] = modes(flags)
    results["load_at_end"] = load()
    text = table(results)
    print(text)
    if flags.out:
        plots = {
            "distribution": lambda figure: draw_distribution(results, figure),
            "imposed": lambda figure: draw_imposed(results, figure),
            "modes": lambda figure: draw_modes(results, figure),
        }
        report.write(flags.out, results, text, plots, __doc__ or "")
    return 0


def distribution(flags: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure the staleness of each worker at a real server, and predict it."""
    seconds = 5.0 if flags.quick else 30.0
    alike = 8
    slow = tuple((number, max(SHARES) / share) for number, share in enumerate(SHARES))
    rows = []
    for name, workers, factors in tracked(
        [("8 alike", alike, ()), ("rates 4:2:1:1", len(SHARES), slow)], "distribution"
    ):
        found = measured(Run(workers, 0.02, "exp", slow=factors, seconds=seconds))
        shares = [1 / dict(factors).get(number, 1.0) for number in range(workers)]
        predicted = [sum(shares) / share - 1 for share in shares]
        rows.append({"what": name, "predicted": predicted, "workers": found["workers"], "applied": found["applied"]})
    return rows


def imposed(flags: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure loss and accuracy after updates with gradients of a constant staleness."""
    delays = (0, 15) if flags.quick else (0, 3, 7, 15, 31)
    updates, seeds = (300, 1) if flags.quick else (2000, 3)
    rows = []
    for rate in (0.3,) if flags.quick else (0.1, 0.5):
        for name in tracked(COMPENSATIONS, f"imposed staleness, learning rate {rate:g}"):
            for delay in delays:
                ends = [delayed(delay, name, rate, updates, seed) for seed in range(seeds)]
                loss, accuracy = (median(values) for values in zip(*ends, strict=True))
                rows.append({"staleness": delay, "compensation": name, "learning_rate": rate, "updates": updates,
                             "loss": loss, "accuracy": accuracy})  # fmt: skip
    return rows


def modes(flags: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure throughput and accuracy of every mode in the same time, with a straggler."""
    seconds = 4.0 if flags.quick else 10.0
    rows = []
    for mode in tracked(("async", "ssp:3", "bsp") if flags.quick else MODES, "modes"):
        found = measured(Run(8, 0.02, slow=((7, 5.0),), seconds=seconds, flags=("--mode", mode)))
        histogram: dict[int, int] = {}
        for worker in found["workers"]:
            for tau, count in worker["staleness"].items():
                histogram[int(tau)] = histogram.get(int(tau), 0) + count
        mean = sum(tau * count for tau, count in histogram.items()) / max(1, sum(histogram.values()))
        rows.append({"mode": mode, "seconds": seconds, "per_s": found["per_s"], "accuracy": found["accuracy"],
                     "mean_staleness": mean})  # fmt: skip
    return rows


def table(results: dict[str, Any]) -> str:
    """Return the report in Markdown without the plots."""
    first = [
        [row["what"], str(number), str(worker["updates"]), f"{worker['mean']:.2f}", f"{row['predicted'][number]:.2f}"]
        for row in results["distribution"]
        for number, worker in enumerate(row["workers"])
    ]
    delays = sorted({row["staleness"] for row in results["imposed"]})
    second = [
        [name, f"{rate:g}", *(_ended(results, name, rate, delay) for delay in delays)]
        for rate in sorted({row["learning_rate"] for row in results["imposed"]})
        for name in COMPENSATIONS
    ]
    third = [
        [row["mode"], f"{row['per_s']:.0f}", f"{row['mean_staleness']:.2f}", f"{row['accuracy']:.4f}"]
        for row in results["modes"]
    ]
    updates, seconds = results["imposed"][0]["updates"], results["modes"][0]["seconds"]
    return "\n\n".join(
        [
            report.head(results, "Staleness"),
            "## Distribution: emulated exponential steps of 20 ms (mean) at a real server",
            report.rows(["workers", "worker", "pushes", "mean τ", "predicted"], first),
            f"## Imposed: test loss and accuracy after {updates:,} updates, each with a gradient τ versions old",
            report.rows(["compensation", "η", *(f"τ = {delay}" for delay in delays)], second),
            f"## Modes: {seconds:.0f} s with eight workers, 20 ms emulated steps, worker 7 five times slower, η = 0.1",
            report.rows(["mode", "push-pulls/s", "mean τ", "test accuracy"], third),
        ]
    )


def draw_distribution(results: dict[str, Any], figure: Any) -> None:
    """Plot a histogram of the staleness of each worker, with the prediction."""
    axes = figure.subplots(1, len(results["distribution"]))
    for axis, row in zip(axes, results["distribution"], strict=True):
        for number, worker in enumerate(row["workers"]):
            tau = np.array([int(key) for key in worker["staleness"]])
            share = np.array(list(worker["staleness"].values())) / worker["updates"]
            axis.plot(tau, share, ".-", alpha=0.5, linewidth=0.8, label=f"worker {number}, mean {worker['mean']:.1f}")
        count = len(row["workers"])
        if len(set(row["predicted"])) == 1:
            k = np.arange(0, 6 * count)
            axis.plot(k, (1 - 1 / count) ** k / count, "k--", label="predicted, geometric")
        axis.set(xlabel="staleness τ", ylabel="share of pushes", title=row["what"], yscale="log", ylim=(1e-3, 1))
        axis.legend(fontsize=7)
        axis.grid(alpha=0.3)


def draw_imposed(results: dict[str, Any], figure: Any) -> None:
    """Plot loss and accuracy against the imposed staleness."""
    rates = sorted({row["learning_rate"] for row in results["imposed"]})
    figure.set_size_inches(11, 7)
    axes = figure.subplots(2, len(rates), squeeze=False, sharex=True)
    for column, rate in enumerate(rates):
        for name in COMPENSATIONS:
            rows = [r for r in results["imposed"] if (r["compensation"], r["learning_rate"]) == (name, rate)]
            for axis, what in zip(axes[:, column], ("accuracy", "loss"), strict=True):
                dashed = "--" if name == "delay_adaptive" else "-"  # with one worker it lies on `inverse`
                axis.plot([r["staleness"] for r in rows], [r[what] for r in rows], f"o{dashed}", label=name)
        axes[0, column].set(ylabel="test accuracy", title=f"η = {rate:g}")
        axes[1, column].set(xlabel="staleness τ of every gradient", ylabel="test loss", yscale="log")
        for axis in axes[:, column]:
            axis.grid(alpha=0.3)
    axes[0, 0].legend(fontsize=8)


def draw_modes(results: dict[str, Any], figure: Any) -> None:
    """Plot the test accuracy of each mode against its throughput."""
    axis = figure.subplots()
    for row in results["modes"]:
        axis.plot(row["per_s"], row["accuracy"], "o", markersize=9)
        note = f"{row['mode']} (mean τ {row['mean_staleness']:.1f})"
        axis.annotate(note, (row["per_s"], row["accuracy"]), (9, 0), textcoords="offset points", va="center")
    rates = [row["per_s"] for row in results["modes"]]
    axis.set(xlabel="push-pulls/s", ylabel="test accuracy after the same time", xlim=(0, 1.3 * max(rates)),
             title="Eight workers, one of them five times slower")  # fmt: skip
    axis.grid(alpha=0.3)


def delayed(delay: int, compensation: str, rate: float, updates: int, seed: int) -> tuple[float, float]:
    """Return test loss and accuracy after `updates` updates with gradients that are `delay` versions old."""
    problem, last = Network(seed), np.empty(0, np.float32)
    shard = Shard(
        problem.initial(),
        Optimizer("sgd", Hyperparameters(learning_rate=rate), problem.dim),
        consistency_of("async"),
        compensation_of(compensation),
        options=UpdateOptions(version_depth=delay + 2),
    )

    def observe(version: int, weights: np.ndarray) -> None:
        nonlocal last
        if version == updates:
            last = weights.copy()

    run_delayed(shard, problem, updates, delay, 1, observe)
    return problem.tested(last) if len(last) else (float("nan"), float("nan"))


def _ended(results: dict[str, Any], name: str, rate: float, delay: int) -> str:
    key = (name, rate, delay)
    found = [row for row in results["imposed"] if (row["compensation"], row["learning_rate"], row["staleness"]) == key]
    return f"{found[0]['loss']:.3f}, {found[0]['accuracy']:.4f}"


def _flags(argv: list[str]) -> argparse.Namespace:
    parser = FlagParser(prog="downpour bench staleness", description="Measure the staleness of gradients.")
    parser.add_argument("--quick", action="store_true", help="Make short runs, with few settings.")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="Folder for results.json, report.md, report.html and plots."
    )
    return parser.parse_args(argv)
