"""`downpour bench kernels`: compares the time of each update rule with the memory bandwidth.

An update must move its bytes once: it reads w and g, writes w', and reads and writes every slot. This is 12 bytes per
weight for SGD, 20 with one slot and 28 with two. The reference is memcpy of the weights, which moves 8 bytes (4 read, 4
written), so SGD is compared with 1.5 copies, one slot with 2.5 and two slots with 3.5. The memcpy of a library may be
faster for longer vectors (that of glibc from about 200 MB); `one call` is the ratio to a single copy of all the bytes.

All rules are measured in turns, so that conditions are similar, and by the CPU time of the thread, which excludes the
time of waiting for a core. Ratios are computed between neighbouring measurements; the table contains their median and
quartiles.

`resident` is the same work repeated on one block, which is the time of the arithmetic without memory traffic.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from time import thread_time
from typing import Any

import numpy as np

from downpour.bench import report
from downpour.bench.flags import FlagParser
from downpour.bench.machine import load
from downpour.protos.system.progress import tracked
from downpour.ps.core.optimizer import BLOCK, Optimizer
from downpour.ps.core.rules.hyperparameters import Hyperparameters
from downpour.ps.core.rules.update_rules import OPTIMIZERS

LARGE = 25_600_000  # weights of ResNet-50, about
SMALL = 79_510  # weights of the reference model
TARGETS = {"sgd": 1.2, "momentum": 1.4, "adagrad": 1.8, "rmsprop": 1.8, "adam": 1.8, "adamw": 1.8}


def run(quick: bool) -> dict[str, Any]:
    """Measure every rule of the registry on one thread.

    Args:
        quick: Whether to use fewer repeats, which take less than half a minute.

    Returns:
        Per rule the times in ms, the ratio to memcpy with quartiles and target, and the time of one update of the
        reference model in µs.
    """
    repeats = 7 if quick else 31
    rng = np.random.default_rng(0)
    weights = rng.standard_normal(LARGE, np.float32)
    gradient = rng.standard_normal(LARGE, np.float32) * np.float32(1e-3)
    out = np.ones_like(weights)
    most = max(Optimizer(name, Hyperparameters(), 0).bytes_per_weight for name in OPTIMIZERS)
    # The arrays are written to, because all pages that are only reserved map to one page of zeros.
    longest = (np.ones(LARGE * most // 2, np.uint8), np.ones(LARGE * most // 2, np.uint8))
    kernels = {name: _kernel(name, weights, gradient, out, longest, repeats) for name in OPTIMIZERS}
    return {
        "weights": LARGE,
        "small_weights": SMALL,
        "block": BLOCK,
        "repeats": repeats,
        "kernels": kernels,
    }


def _kernel(
    name: str,
    weights: np.ndarray,
    gradient: np.ndarray,
    out: np.ndarray,
    longest: tuple[np.ndarray, np.ndarray],
    repeats: int,
) -> dict[str, Any]:
    """Return the row of a rule."""
    large, block = Optimizer(name, Hyperparameters(), LARGE), Optimizer(name, Hyperparameters(), BLOCK)
    moved = large.bytes_per_weight
    source, target = (array[: LARGE * moved // 2] for array in longest)

    def resident() -> None:
        for _ in range(LARGE // BLOCK):
            block.apply(weights[:BLOCK], gradient[:BLOCK], out[:BLOCK])

    vector, one_call, updates, residents = _interleaved(
        (
            lambda: np.copyto(out, weights),
            lambda: np.copyto(target, source),
            lambda: large.apply(weights, gradient, out),
            resident,
        ),
        repeats,
    )
    copies = [seconds * moved / 8 for seconds in vector]
    low, middle, high = quantiles([u / c for u, c in zip(updates, copies, strict=True)], n=4)
    return {
        "bytes_per_weight": moved,
        "memcpy_ms": 1e3 * median(copies),
        "update_ms": 1e3 * median(updates),
        "resident_ms": 1e3 * median(residents),
        "ratio": middle,
        "ratio_quartiles": [low, high],
        "ratio_one_call": median(u / c for u, c in zip(updates, one_call, strict=True)),
        "target": TARGETS.get(name),
        "small_us": 1e6 * _small(name, weights, gradient, out, repeats),
    }


def _small(name: str, weights: np.ndarray, gradient: np.ndarray, out: np.ndarray, repeats: int) -> float:
    """Return the time of one update of the reference model in s."""
    small = Optimizer(name, Hyperparameters(), SMALL)
    w, g, new = weights[:SMALL], gradient[:SMALL], out[:SMALL]

    def updates() -> None:
        for _ in range(50):
            small.apply(w, g, new)

    return median(_interleaved((updates,), repeats)[0]) / 50


def _interleaved(actions: tuple[Callable[[], None], ...], repeats: int) -> list[list[float]]:
    """Return the seconds of every action in every round, after one round of warm-up."""
    times: list[list[float]] = [[] for _ in actions]
    for i in tracked(range(repeats + 1), "repeats"):
        for seconds, action in zip(times, actions, strict=True):
            start = thread_time()
            action()
            if i:
                seconds.append(thread_time() - start)
    return times


def table(results: dict[str, Any]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        f"{results['weights']:,} float32 weights, blocks of {results['block']:,}, one thread, "
        f"medians of {results['repeats']}",
        "",
        "| rule | bytes/weight | memcpy ms | update ms | ratio (quartiles) | target | one call | resident ms "
        f"| {results['small_weights']:,} weights µs |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in results["kernels"].items():
        low, high = row["ratio_quartiles"]
        bound = f"≤ {row['target']}" if row["target"] else ""
        lines.append(
            f"| {name} | {row['bytes_per_weight']} | {row['memcpy_ms']:.1f} | {row['update_ms']:.1f} "
            f"| {row['ratio']:.2f} ({low:.2f}–{high:.2f}) | {bound} | {row['ratio_one_call']:.2f} "
            f"| {row['resident_ms']:.1f} | {row['small_us']:.0f} |"
        )
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """Measure, print the table, and write the report if requested."""
    parser = FlagParser(prog="downpour bench kernels", description="Compare update rules with memcpy.")
    parser.add_argument("--quick", action="store_true", help="Repeat each measurement less often.")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="Folder for results.json, report.md, report.html and a plot."
    )
    flags = parser.parse_args(argv)
    results = {**report.results_header("kernels", argv), **run(flags.quick), "load_at_end": load()}
    text = f"{report.head(results, 'Update kernels')}\n\n{table(results)}"
    print(text)
    if flags.out:
        report.write(flags.out, results, text, {"kernels": lambda figure: draw(results, figure)}, __doc__ or "")
    return 0


def draw(results: dict[str, Any], figure: Any) -> None:
    """Plot the ratios to memcpy with quartiles and targets."""
    axis = figure.subplots()
    for place, row in enumerate(results["kernels"].values()):
        low, high = row["ratio_quartiles"]
        spread = [[row["ratio"] - low], [high - row["ratio"]]]
        axis.bar(place, row["ratio"], 0.6, yerr=spread, capsize=3, color="C0")
        if row["target"]:
            axis.plot([place - 0.4, place + 0.4], [row["target"]] * 2, "k--", linewidth=1)
        axis.text(place, 0.05, f"{row['update_ms']:.0f} ms", ha="center", color="white", fontsize=8)
    axis.axhline(1, color="0.6", linewidth=0.8)
    axis.set_xticks(range(len(results["kernels"])), list(results["kernels"]))
    axis.set(ylabel="time / memcpy of the bytes that must move", title="Update rules, 25.6 M weights (dashed: target)")
