"""The real processes of `downpour bench modes`: a server, and workers with NumPy gradients.

Four workers compute real gradients of the reference network (784-100-10, MNIST, batch 32) and sleep until a step
has lasted 40 ms, the last worker 200 ms. The first records weights and versions as it pulls them; their loss
on 2,000 test images is computed after the run.
"""

from __future__ import annotations

from typing import Any

from downpour.bench.emulated import Run, measured
from downpour.bench.training.staleness import delayed
from downpour.protos.system.progress import tracked

WORKERS, STEP_S, SLOWER, RATE = 4, 0.04, 5.0, 0.3
MODES = ("async", "ssp:3", "softsync:4", "backup:3", "bsp", "localsgd:8")
DELAYS, RATES, UPDATES = (0, 3, 7, 15, 31, 63), (0.1, 0.3, 1.0), 600


def curves(seconds: float) -> dict[str, list[tuple[float, int, float]]]:
    """Return `(seconds, version, test loss)` during a run of every mode."""
    found = {}
    for mode in tracked(MODES, "modes"):
        period = int(mode.partition(":")[2]) if mode.startswith("localsgd") else 1
        run = Run(
            WORKERS, STEP_S, slow=((WORKERS - 1, SLOWER),), seconds=seconds, learning_rate=RATE, period=period,
            look_s=seconds / 100, flags=("--mode", mode, "--checkpoint-every=off"),
        )  # fmt: skip
        found[mode] = [tuple(point) for point in measured(run)["curve"]]
    return found


def lines_of(found: dict[str, list[tuple[float, int, float]]], loss: float = 0.5) -> list[str]:
    """Return a Markdown row for every mode: updates, final loss, seconds after which the loss stayed below `loss`."""
    rows = ["| mode | updates/s | test loss at the end | seconds until it stays below 0.5 |", "|---|---|---|---|"]
    for mode, points in found.items():
        above = [s for s, _, each in points if each > loss]
        end_s, version, last = points[-1]
        reached = f"{above[-1]:.1f}" if above and last <= loss else "not reached" if above else "0"
        rows.append(f"| `{mode}` | {version / end_s:.1f} | {last:.3f} | {reached} |")
    return rows


def accuracies(seeds: int) -> dict[float, list[float]]:
    """Return the test accuracy for every learning rate and constant delay, as means over seeds."""
    return {
        rate: [sum(delayed(delay, "none", rate, UPDATES, seed)[1] for seed in range(seeds)) / seeds for delay in DELAYS]
        for rate in RATES
    }


def draw_curves(axes: Any, found: dict[str, list[tuple[float, int, float]]]) -> None:
    """Plot the test loss against updates and against seconds."""
    for index, (mode, points) in enumerate(found.items()):
        points = [point for point in points if point[1] > 0]  # a logarithmic axis cannot show version 0
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
    """Plot the test accuracy against the staleness."""
    for rate, values in found.items():
        axis.plot(range(len(DELAYS)), values, "o-", markersize=4, label=f"η = {rate:g}")
    axis.set_xticks(range(len(DELAYS)), [str(delay) for delay in DELAYS])
    axis.set(xlabel="staleness τ of every gradient", ylabel="test accuracy", ylim=(0, 1))
    axis.legend(fontsize=8)
