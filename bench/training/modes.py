"""`downpour bench modes`: draws the plots of docs/modes.md, from real runs and in virtual time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

from downpour.bench.simulation.problems import Logistic, problem_of
from downpour.bench.simulation.simulate import SimulateSettings, simulate
from downpour.bench.training import modes_real
from downpour.protos.settings import Settings, parse
from downpour.protos.system.progress import tracked

PROBLEM = "logistic:dim=20,samples=2000,batch=16"
STRAGGLER = ",".join(["shifted_exp:0.5,2"] * 7 + ["shifted_exp:2.5,0.4"])  # the last worker is five times slower
MODES = (
    "async", "bsp", "backup:7", "ksync:7", "ssp:3", "kasync:4", "softsync:8", "ringmaster:16", "rennala:8",
    "localsgd:8", "easgd:0.9,8",
)  # fmt: skip
POLICIES = ("none", "inverse", "delay_adaptive", "dc_asgd", "dc_asgd:1b", "dc_asgd_adaptive")


class ModesSettings(Settings):
    """Draw the plots of docs/modes.md."""

    groups: ClassVar[dict[str, tuple[str, ...]]] = {"output": ("folder", "only", "seeds", "seconds")}

    folder: str = Field("bench-results/modes", description="Folder of the plots.")
    only: str = Field("", description="Plot to draw: real, straggler, accuracy, delay or robustness (default: all).")
    seeds: int = Field(5, ge=1, description="Number of runs per point of the accuracy and robustness plots.")
    seconds: float = Field(20.0, gt=0, description="Duration of a real run in seconds.")

    @field_validator("only")
    @classmethod
    def _known(cls, value: str) -> str:
        if value and value not in PICTURES:
            raise ValueError(f"must be one of {', '.join(PICTURES)}")
        return value


def curve(mode: str, pushes: int, learning_rate: float, seed: int = 0) -> list[tuple[int, float, float]]:
    """Return `(version, seconds, excess loss)` during a run with one straggler."""
    problem = problem_of(PROBLEM, seed, 8)
    assert isinstance(problem, Logistic) and problem.optimum is not None
    least = problem.loss(problem.optimum.astype(np.float32))
    versions = [int(v) for v in np.unique(np.geomspace(1, updates_of(mode, pushes), 40).astype(int))]
    wanted = set(versions)
    losses: dict[int, float] = {}

    def observe(version: int, weights: np.ndarray) -> None:
        if version in wanted:
            losses[version] = problem.loss(weights) - least

    settings = dict(workers=8, mode=mode, service=STRAGGLER, problem=PROBLEM, learning_rate=learning_rate, seed=seed)
    result = simulate(SimulateSettings(updates=versions[-1], **settings), observe)  # type: ignore[arg-type]
    pace_s = result["virtual_time_s"] / result["updates"]
    return [(version, version * pace_s, loss) for version, loss in losses.items()]


def updates_of(mode: str, pushes: int) -> int:
    """Return the number of updates that about `pushes` pushes make in a mode."""
    name, _, rest = mode.partition(":")
    count = {"bsp": 8}.get(name, int(rest) if name in ("backup", "ksync", "kasync", "softsync", "rennala") else 1)
    return max(10, pushes // count // (8 if name in ("localsgd", "easgd") else 1))


def real_picture(path: Path, settings: ModesSettings) -> None:
    """Plot the test loss against updates and against seconds of real processes, with one straggler."""
    title = "A real server, four NumPy workers on MNIST; emulated compute: 40 ms a step, one worker 200 ms; η = 0.3"
    figure, axes = _figure(title, 2)
    curves = modes_real.curves(settings.seconds)
    modes_real.draw_curves(axes, curves)
    print("\n".join(modes_real.lines_of(curves)))
    _save(figure, path)


def accuracy_picture(path: Path, settings: ModesSettings) -> None:
    """Plot the test accuracy against a constant delay, for several learning rates."""
    title = f"784-100-10 on MNIST after {modes_real.UPDATES:,} updates, means of {settings.seeds} seeds (virtual time)"
    figure, (axis,) = _figure(title, 1)
    accuracies = modes_real.accuracies(settings.seeds)
    modes_real.draw_accuracies(axis, accuracies)
    for rate, values in accuracies.items():
        print(f"η = {rate:g}: " + ", ".join(f"{value:.3f}" for value in values))
    _save(figure, path)


def straggler_picture(path: Path, settings: ModesSettings) -> None:
    """Plot the excess loss against updates and against virtual seconds for every mode, with one straggler."""
    figure, axes = _figure("Eight workers in virtual time, one of them five times slower", 2)
    for index, mode in enumerate(MODES):
        points = curve(mode, 8000, 0.2)
        style = {"color": f"C{index % 10}", "linestyle": "-" if index < 10 else "--", "label": mode}
        for axis, at in zip(axes, (0, 1), strict=True):
            axis.loglog([point[at] for point in points], [max(point[2], 1e-6) for point in points], **style)
    axes[0].set(xlabel="updates", ylabel="loss above its minimum")
    axes[1].set(xlabel="virtual seconds")
    axes[1].legend(fontsize=7, ncols=2)
    _save(figure, path)


def delay_picture(path: Path, settings: ModesSettings) -> None:
    """Plot the distance to the optimum against a constant delay, for several learning rates."""
    figure, (axis,) = _figure("4,000 updates with a constant delay (virtual time)", 1)
    delays = (0, 1, 2, 4, 8, 16, 32, 64, 128)
    for rate in tracked((0.02, 0.05, 0.1, 0.2, 0.5), "learning rates"):
        left = []
        for delay in delays:
            result = simulate(
                SimulateSettings(fixed_delay=delay, problem=PROBLEM, learning_rate=rate, updates=4000, workers=1)
            )
            left.append(min(result["distance"] or 1e2, 1e2))
        axis.plot(range(len(delays)), left, "o-", label=f"η = {rate:g}")
    axis.set_xticks(range(len(delays)), [str(delay) for delay in delays])
    axis.set(xlabel="staleness τ of every gradient", ylabel="distance to the optimum", yscale="log")
    axis.legend()
    _save(figure, path)


def robustness_picture(path: Path, settings: ModesSettings) -> None:
    """Plot the excess loss against the learning rate for every compensation, as medians over seeds."""
    seeds = settings.seeds
    figure, (axis,) = _figure(f"16 workers, 1,000 updates, medians of {seeds} seeds (virtual time)", 1)
    rates = np.geomspace(0.02, 5, 9)
    for policy in tracked(POLICIES, "compensations"):
        medians = [float(np.median([_excess(policy, float(rate), seed) for seed in range(seeds)])) for rate in rates]
        axis.loglog(rates, medians, "o-", markersize=3, label=policy)
    axis.set(xlabel="learning rate η", ylabel="loss above its minimum", ylim=(1e-3, 10))
    axis.legend(fontsize=8)
    _save(figure, path)


def _excess(policy: str, rate: float, seed: int) -> float:
    problem = problem_of(PROBLEM, seed, 16)
    assert isinstance(problem, Logistic) and problem.optimum is not None
    settings = SimulateSettings(
        workers=16, staleness_policy=policy, problem=PROBLEM, learning_rate=rate, updates=1000, seed=seed
    )
    loss = simulate(settings)["loss"] - problem.loss(problem.optimum.astype(np.float32))
    return float(min(loss, 10.0)) if np.isfinite(loss) else 10.0


def _figure(title: str, count: int) -> tuple[Any, Sequence[Any]]:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, count, figsize=(5 * count + 1, 4), layout="constrained", sharey=True, squeeze=False)
    figure.suptitle(title, fontsize=11)
    for axis in axes[0]:
        axis.grid(alpha=0.3)
    return figure, list(axes[0])


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=110)
    print(path)


PICTURES: dict[str, Callable[[Path, ModesSettings], None]] = {
    "real": real_picture,
    "straggler": straggler_picture,
    "accuracy": accuracy_picture,
    "delay": delay_picture,
    "robustness": robustness_picture,
}


def main(argv: list[str]) -> int:
    """Draw the plots and return the exit status."""
    settings = parse(ModesSettings, argv, "downpour bench modes")
    folder = Path(settings.folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in PICTURES.items():
        if settings.only in ("", name):
            picture(folder / f"modes-{name}.png", settings)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
