"""The part of `downpour bench modes` that is real: a server process, and worker processes with NumPy gradients.

Four workers compute real gradients of the reference network (784-100-10, MNIST, batch 32) and sleep out a step of
40 ms, the last of them one of 200 ms. The first notes weights and version as it pulls them; their loss on 2,000 test
images is computed when the run is over.
"""

from __future__ import annotations

from typing import Any

from downpour.bench.speed.emulated import Run, measured
from downpour.bench.training.staleness import delayed

WORKERS, STEP_S, SLOWER, RATE = 4, 0.04, 5.0, 0.3
MODES = ("async", "ssp:3", "softsync:4", "backup:3", "bsp", "localsgd:8")
DELAYS, RATES, UPDATES = (0, 3, 7, 15, 31, 63), (0.1, 0.3, 1.0), 600


def curves(seconds: float) -> dict[str, list[tuple[float, int, float]]]:
    """`(seconds, version, test loss)` along a run of every mode."""
    found = {}
    for mode in MODES:
        period = int(mode.partition(":")[2]) if mode.startswith("localsgd") else 1
        run = Run(
            WORKERS, STEP_S, slow=((WORKERS - 1, SLOWER),), seconds=seconds, learning_rate=RATE, period=period,
            look_s=seconds / 100, flags=("--mode", mode, "--checkpoint-every=off"),
        )  # fmt: skip
        found[mode] = [tuple(point) for point in measured(run)["curve"]]
    return found


def lines_of(found: dict[str, list[tuple[float, int, float]]], loss: float = 0.5) -> list[str]:
    """A row of Markdown for every mode: updates, loss at the end, seconds until a loss was reached for good."""
    rows = ["| mode | updates/s | test loss at the end | seconds until it stays below 0.5 |", "|---|---|---|---|"]
    for mode, points in found.items():
        above = [s for s, _, each in points if each > loss]
        end_s, version, last = points[-1]
        reached = f"{above[-1]:.1f}" if above and last <= loss else "not reached" if above else "0"
        rows.append(f"| `{mode}` | {version / end_s:.1f} | {last:.3f} | {reached} |")
    return rows


def accuracies(seeds: int) -> dict[float, list[float]]:
    """Test accuracy after so many updates, for every step at every constant delay: means of seeds."""
    return {
        rate: [sum(delayed(delay, "none", rate, UPDATES, seed)[1] for seed in range(seeds)) / seeds for delay in DELAYS]
        for rate in RATES
    }


def draw_curves(axes: Any, found: dict[str, list[tuple[float, int, float]]]) -> None:
    """Loss against updates and against seconds."""
    for index, (mode, points) in enumerate(found.items()):
        points = [point for point in points if point[1] > 0]  # version 0 has no place on a logarithmic axis
        losses = [loss for _, _, loss in points]
        for axis, at in zip(axes, (1, 0), strict=True):
            axis.semilogy([point[at] for point in points], losses, color=f"C{index}", label=mode)
    axes[0].set(xlabel="updates", ylabel="test loss", xscale="log", xlim=(5, None))
    axes[1].set(xlabel="seconds")
    for axis in axes:
        axis.set_yticks([0.3, 0.5, 1.0, 2.0], ["0.3", "0.5", "1", "2"])
        axis.minorticks_off()
    axes[1].legend(fontsize=8)


def draw_accuracies(axis: Any, found: dict[float, list[float]]) -> None:
    """Accuracy against staleness."""
    for rate, values in found.items():
        axis.plot(range(len(DELAYS)), values, "o-", markersize=4, label=f"η = {rate:g}")
    axis.set_xticks(range(len(DELAYS)), [str(delay) for delay in DELAYS])
    axis.set(xlabel="staleness τ of every gradient", ylabel="test accuracy", ylim=(0, 1))
    axis.legend(fontsize=8)
