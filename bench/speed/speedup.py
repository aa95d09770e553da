"""`downpour bench speedup`: measures samples/s and the time to an accuracy by the number of workers.

- *Real compute*: `downpour train` with one TensorFlow worker up to as many as there are cores. The time to accuracy is
  interpolated linearly between the validation accuracies at the ends of the epochs.
- *Emulated compute*: NumPy workers compute a real gradient of the same network (784-100-10, MNIST, batch 32) and sleep
  until their step has ended. More workers than cores share the server and the transport, but not the cores.
- *Prediction*: a closed queue of P workers and one server (mean-value analysis: X(n) = n / (Z + R(n)),
  R(n) = S (1 + Q(n − 1)), Q(n) = X(n) R(n)); Z is the emulated step, S the time of a push-pull at saturation, measured
  in the same run. If one worker is slower, the mean of the workers' rates replaces 1/Z.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from downpour.bench import report
from downpour.bench.comparison import spread
from downpour.bench.competitors.competitors import TrainingSpec, train
from downpour.bench.emulated import BATCH, Run, measured
from downpour.bench.flags import FlagParser
from downpour.bench.machine import cores, load
from downpour.bench.speed.many_workers import push_pulls
from downpour.protos.system.progress import tracked
from downpour.protos.transports import transport_names
from downpour.worker.catalog.datasets import load as load_dataset

FLOATS = 79_510
MODES = ("async", "bsp")


def main(argv: list[str]) -> int:
    """Measure, print the tables, and write the report if requested."""
    flags = _flags(argv)
    results = report.results_header("speedup", argv)
    results |= {"accuracy": flags.accuracy, "compute_s": flags.compute_s, "straggler": list(flags.straggler)}
    results["real"] = real(flags)
    results["saturation_per_s"] = push_pulls(4, FLOATS, flags.transport, 0.0, 2.0 if flags.quick else 5.0)["per_s"]
    results["emulated"] = emulated(flags)
    predict(results)
    results["load_at_end"] = load()
    text = table(results)
    print(text)
    if flags.out:
        plots = {"speedup": lambda figure: draw(results, figure), "accuracy": lambda figure: draw_time(results, figure)}
        report.write(flags.out, results, text, plots, __doc__ or "")
    return 0


def real(flags: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure trainings with TensorFlow workers; the numbers of workers take turns."""
    counts = [count for count in (1, 2, 4, 8, 16) if count <= max(2, cores())]
    found: dict[int, list[dict[str, Any]]] = {count: [] for count in counts}
    for repeat in tracked(range(flags.repeats), "training jobs"):
        for count in counts:
            job = TrainingSpec(
                "sigmoid100", "mnist", flags.epochs, BATCH, 0.1, repeat, workers=count, validation_split=0.05
            )
            with tempfile.TemporaryDirectory(prefix="downpour-bench-") as folder:
                extra = ("--transport", flags.transport)
                summary = train(job, Path(folder), 600.0, extra)
                trace = np.load(Path(folder) / "latest" / "trace.npy")
            found[count].append({**_kept(summary), "reached_s": _reached_s(summary, trace, flags.real_accuracy)})
    one = [run["samples_per_s"] for run in found[1]]
    return [
        {
            "workers": count,
            "runs": runs,
            "samples_per_s": spread([run["samples_per_s"] for run in runs]),
            "speedup": spread([run["samples_per_s"] / first for run, first in zip(runs, one, strict=True)]),
            "reached_s": _middle([run["reached_s"] for run in runs]),
        }
        for count, runs in found.items()
    ]


def emulated(flags: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure every mode, with and without stragglers, for every number of workers."""
    lines = []
    for slow in [(), flags.straggler] if flags.straggler else [()]:
        for mode in MODES:
            for count in tracked(flags.workers, f"emulated workers, mode {mode}"):
                if slow and count <= max(number for number, _ in slow):
                    continue
                runs = [_run(flags, mode, count, slow, seed) for seed in range(flags.repeats)]
                lines.append(
                    {
                        "mode": mode,
                        "workers": count,
                        "slow": [list(one) for one in slow],
                        "per_s": spread([run["per_s"] for run in runs]),
                        "reached_s": _middle([run["reached_s"] for run in runs]),
                        "updates": median(run["applied"] for run in runs),
                    }
                )
    return lines


def predict(results: dict[str, Any]) -> None:
    """Add the prediction of the closed queue, and the speedup of each row over one worker of normal speed."""
    service_s = 1 / results["saturation_per_s"]
    one = {r["mode"]: r["per_s"]["median"] for r in results["emulated"] if r["workers"] == 1 and not r["slow"]}
    for row in results["emulated"]:
        row["speedup"] = row["per_s"]["median"] / one.get(row["mode"], float("nan"))
        if row["mode"] == "async":
            slow = dict(map(tuple, row["slow"]))
            rates = [1 / (results["compute_s"] * slow.get(number, 1.0)) for number in range(row["workers"])]
            row["predicted_per_s"] = closed_queue(row["workers"], row["workers"] / sum(rates), service_s)


def closed_queue(workers: int, think_s: float, service_s: float) -> float:
    """Return the push-pulls/s of a closed queue by mean-value analysis (Reiser and Lavenberg, 1980)."""
    queue, rate = 0.0, 0.0
    for n in range(1, workers + 1):
        response_s = service_s * (1 + queue)
        rate = n / (think_s + response_s)
        queue = rate * response_s
    return rate


def table(results: dict[str, Any]) -> str:
    """Return the report in Markdown without the plots."""
    real_rows = [
        [
            str(row["workers"]),
            _spread(row["samples_per_s"]),
            _spread(row["speedup"], "{:.2f}"),
            f"{row['speedup']['median'] / row['workers']:.2f}",
            _seconds(row["reached_s"]),
        ]
        for row in results["real"]
    ]
    rows = [
        [
            row["mode"],
            " ".join(f"worker {number} {factor:g}×" for number, factor in row["slow"]) or "none",
            str(row["workers"]),
            _spread(row["per_s"]),
            f"{row['predicted_per_s']:.0f}" if "predicted_per_s" in row else "",
            f"{row['speedup']:.2f}",
            f"{row['speedup'] / row['workers']:.2f}",
            _seconds(row["reached_s"]),
            f"{row['updates']:.0f}",
        ]
        for row in results["emulated"]
    ]
    return "\n\n".join(
        [
            report.head(results, "Speedup"),
            "## Real compute: TensorFlow workers, asynchronous",
            report.rows(["workers", "samples/s", "speedup", "efficiency", "s to accuracy"], real_rows),
            f"## Emulated compute: {1e3 * results['compute_s']:.0f} ms a step, to test accuracy {results['accuracy']}",
            report.rows(
                ["mode", "straggler", "workers", "push-pulls/s", "predicted", "speedup", "efficiency", "s to accuracy",
                 "pushes"],
                rows,
            ),
            f"At saturation (4 workers that compute nothing) the server completes {results['saturation_per_s']:.0f} "
            "push-pulls/s.",
        ]
    )  # fmt: skip


def draw(results: dict[str, Any], figure: Any) -> None:
    """Plot speedup and efficiency, with the ideal and the predicted curve."""
    left, right = figure.subplots(1, 2)
    figure.suptitle(f"Emulated compute, {1e3 * results['compute_s']:.0f} ms a step; TensorFlow workers: real compute")
    for name, rows in _series(results).items():
        x = [row["workers"] for row in rows]
        left.plot(x, [row["speedup"] for row in rows], "o-", label=name)
        right.plot(x, [row["speedup"] / row["workers"] for row in rows], "o-", label=name)
    base = next(r["per_s"]["median"] for r in results["emulated"] if r["workers"] == 1)
    plain = [row for row in results["emulated"] if "predicted_per_s" in row and not row["slow"]]
    counts = [row["workers"] for row in plain]
    left.plot(counts, [row["predicted_per_s"] / base for row in plain], "k:", label="closed queue, async")
    left.plot(counts, counts, color="0.7", label="ideal")
    real_counts = [row["workers"] for row in results["real"]]
    left.plot(
        real_counts, [row["speedup"]["median"] for row in results["real"]], "s--", label="TensorFlow, real compute"
    )
    left.set(xscale="log", yscale="log", xlabel="workers", ylabel="speedup")
    right.set(xscale="log", xlabel="workers", ylabel="efficiency", ylim=(0, 1.15))
    left.set_yticks(counts, [str(count) for count in counts])
    for axis in (left, right):
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    left.legend(fontsize=8)


def draw_time(results: dict[str, Any], figure: Any) -> None:
    """Plot the time to accuracy."""
    axis = figure.subplots()
    for name, rows in _series(results).items():
        reached = [row for row in rows if row["reached_s"]]
        label = name if len(reached) == len(rows) else f"{name} (not always reached)"
        axis.plot([row["workers"] for row in reached], [row["reached_s"] for row in reached], "o-", label=label)
    axis.set(xscale="log", xlabel="workers", ylabel="s", ylim=(0, None),
             title=f"Time to test accuracy {results['accuracy']}, emulated compute")  # fmt: skip
    counts = sorted({row["workers"] for row in results["emulated"]})
    axis.set_xticks(counts, [str(count) for count in counts])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend()


def _series(results: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in results["emulated"]:
        found.setdefault(row["mode"] + (", straggler" if row["slow"] else ""), []).append(row)
    return found


def _run(
    flags: argparse.Namespace, mode: str, count: int, slow: Sequence[tuple[int, float]], seed: int
) -> dict[str, Any]:
    run = Run(count, flags.compute_s, slow=tuple(slow), accuracy=flags.accuracy, seconds=flags.seconds, seed=seed,
              transport=flags.transport, flags=("--mode", mode))  # fmt: skip
    return measured(run)


def _kept(summary: dict[str, Any]) -> dict[str, Any]:
    return {key: summary[key] for key in ("samples_per_s", "test_accuracy", "wall_s")}


def _reached_s(summary: dict[str, Any], trace: np.ndarray, accuracy: float) -> float | None:
    """Return when the interpolated validation accuracy reaches `accuracy`, or None."""
    begin_s, before_s, before = float(trace["time_s"].min()), 0.0, 1 / load_dataset("mnist").classes
    for row in summary["history"]:
        end_s = float(trace["time_s"][trace["epoch"] == row["epoch"] - 1].max()) - begin_s
        if row["val_accuracy"] >= accuracy:
            share = (accuracy - before) / (row["val_accuracy"] - before)
            return before_s + share * (end_s - before_s)
        before_s, before = end_s, row["val_accuracy"]
    return None


def _middle(values: Sequence[float | None]) -> float | None:
    """Return the median, or None if a run did not reach the accuracy."""
    return None if None in values else median(value for value in values if value is not None)


def _spread(found: dict[str, float], form: str = "{:.0f}") -> str:
    return f"{form.format(found['median'])} ({form.format(found['q1'])}–{form.format(found['q3'])})"


def _seconds(value: float | None) -> str:
    return "not reached" if value is None else f"{value:.1f}"


def straggler(text: str) -> tuple[int, float]:
    """Parse `NUMBER:FACTORx`, the number of a worker and the factor by which it is slower."""
    number, _, factor = text.removesuffix("x").partition(":")
    try:
        found = int(number), float(factor)
    except ValueError:
        found = (-1, 0.0)
    if found[0] < 0 or found[1] < 1:
        raise argparse.ArgumentTypeError(f"must be a worker and how many times slower it is, 1:5x; received {text!r}")
    return found


def _flags(argv: list[str]) -> argparse.Namespace:
    parser = FlagParser(prog="downpour bench speedup", description="Measure the speedup of workers.")
    parser.add_argument("--quick", action="store_true", help="Measure few workers, once, to a lower accuracy.")
    parser.add_argument(
        "--workers",
        type=lambda text: [int(part) for part in text.split(",")],
        help="Numbers of workers, such as 1,2,4,8 (default: 1,2,4,8,16; with --quick 1,4,8).",
    )
    parser.add_argument(
        "--straggler", type=straggler, action="append", help="Slow worker and factor, such as 1:5x; may be repeated."
    )
    parser.add_argument(
        "--compute-s", type=float, default=0.02, help="Emulated time of a step in seconds (default: 0.02)."
    )
    parser.add_argument(
        "--transport", choices=transport_names(), default="auto", help="Transport of payloads (default: auto)."
    )
    parser.add_argument("--repeats", type=int, help="Number of runs of each measurement (default: 3; with --quick 1).")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="Folder for results.json, report.md, report.html and plots."
    )
    flags = parser.parse_args(argv)
    flags.repeats = flags.repeats or (1 if flags.quick else 3)
    flags.workers = flags.workers or ([1, 4, 8] if flags.quick else [1, 2, 4, 8, 16])
    flags.straggler = tuple(flags.straggler or [(1, 5.0)])
    flags.accuracy, flags.seconds = (0.75, 3.0) if flags.quick else (0.8, 20.0)
    flags.epochs, flags.real_accuracy = (1, 0.9) if flags.quick else (3, 0.94)
    return flags
