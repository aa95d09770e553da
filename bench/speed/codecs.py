"""`downpour bench codecs`: measures the size and time of each codec, and the final loss of a training with it.

- The times in ms are one encoding of a vector with error feedback on the worker, and one decoding on the server.
- The loss is that of softmax regression (784-10) on MNIST after a number of steps of four simulated workers that take
  turns, each with a gradient of the weights that it pulled four updates before. All runs in this process, with the
  project's codecs, error feedback and update rule.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from downpour.bench.comparison import spread
from downpour.bench.flags import FlagParser
from downpour.bench.machine import facts, load
from downpour.protos.codecs.codec import CODECS, codec_named
from downpour.protos.layout import Slice
from downpour.protos.sentences.sentence import counted
from downpour.protos.system.progress import tracked
from downpour.ps.core.optimizer import Optimizer
from downpour.ps.core.rules.hyperparameters import Hyperparameters
from downpour.worker.catalog.datasets import load as load_dataset
from downpour.worker.exchange.error_feedback import ErrorFeedback

NAMES = (*CODECS, "topk:0.1")
FLOATS = (79_510, 2_225_000, 25_500_000)
WORKERS, BATCH, RATE = 4, 64, 0.3


def main(argv: list[str]) -> int:
    """Measure, print a table, and write `results.json`, `report.md` and a plot if requested."""
    parser = FlagParser(
        prog="downpour bench codecs", description="Measure the size, time and final loss of each codec."
    )
    parser.add_argument("--quick", action="store_true", help="Measure smaller vectors, with fewer steps and one seed.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the first repeat (default: 0).")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="Folder for results.json, report.md, report.html and a plot."
    )
    flags = parser.parse_args(argv)
    sizes = FLOATS[:2] if flags.quick else FLOATS
    seeds = range(flags.seed, flags.seed + (1 if flags.quick else 3))
    results: dict[str, Any] = {
        "benchmark": "codecs",
        "command": " ".join(["downpour bench codecs", *argv]),
        "machine": facts(),
        "load_at_start": load(),
        "times": {
            str(floats): timed(floats, 5 if flags.quick else 9) for floats in tracked(sizes, "sizes of the vector")
        },
        "training": {
            name: [trained(name, seed, 400 if flags.quick else 3000) for seed in seeds]
            for name in tracked(NAMES, "training with each codec")
        },
    }
    print(table(results))
    if flags.out:
        flags.out.mkdir(parents=True, exist_ok=True)
        (flags.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
        picture = "![loss](loss.svg)\n\n" if plot(results, flags.out / "loss.svg") else ""
        (flags.out / "report.md").write_text(f"{table(results)}\n\n{picture}## How\n\n{__doc__}")
    return 0


def timed(floats: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Return the size, and the times of encoding and decoding, of each codec; the codecs are measured in turns."""
    rng = np.random.default_rng(0)
    gradient, out = rng.standard_normal(floats, np.float32), np.empty(floats, np.float32)
    sides = {name: (ErrorFeedback(name, [Slice(0, floats, 0)], 0), codec_named(name)) for name in NAMES}
    encode: dict[str, list[float]] = {name: [] for name in NAMES}
    decode: dict[str, list[float]] = {name: [] for name in NAMES}
    for number in range(rounds + 1):
        for name, (feedback, codec) in sides.items():
            start = time.perf_counter()
            payload = feedback.encode(0, gradient)
            middle = time.perf_counter()
            codec.decode(payload, out)
            if number:
                encode[name].append(middle - start)
                decode[name].append(time.perf_counter() - middle)
    return {
        name: {
            "bytes": sides[name][1].size_bytes(floats),
            "encode_s": spread(encode[name]),
            "decode_s": spread(decode[name]),
        }
        for name in NAMES
    }


def trained(name: str, seed: int, steps: int) -> dict[str, Any]:
    """Train with a codec and return the loss on the test set during the run."""
    data = load_dataset("mnist")
    x, y = _flat(data.x_train), data.y_train.astype(int)
    x_test, y_test = _flat(data.x_test), data.y_test.astype(int)
    rng, n = np.random.default_rng(seed), x.shape[1] * 10
    codec, rule = codec_named(name), Optimizer("sgd", Hyperparameters(learning_rate=RATE), n)
    feedbacks = [ErrorFeedback(name, [Slice(0, n, 0)], (seed, worker)) for worker in range(WORKERS)]
    weights, decoded = np.zeros(n, np.float32), np.empty(n, np.float32)
    pulled = [weights] * WORKERS
    curve = []
    for step in range(steps):
        worker = step % WORKERS
        batch = rng.integers(0, len(x), BATCH)
        _, gradient = _loss_and_gradient(pulled[worker], x[batch], y[batch])
        codec.decode(feedbacks[worker].encode(0, gradient), decoded)
        new = np.empty_like(weights)
        rule.apply(weights, decoded, new)
        weights = pulled[worker] = new
        if (step + 1) % max(1, steps // 20) == 0:
            curve.append([step + 1, _loss_and_gradient(weights, x_test, y_test)[0]])
    scores = x_test @ weights.reshape(-1, 10)
    return {
        "seed": seed,
        "curve": curve,
        "loss": curve[-1][1],
        "accuracy": float((scores.argmax(axis=1) == y_test).mean()),
        "pushed_bytes": steps * codec.size_bytes(n),
    }


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32) / 255


def _loss_and_gradient(flat: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the mean cross-entropy of softmax regression and its gradient `float32[784·10]`."""
    scores = x @ flat.reshape(-1, 10)
    scores -= scores.max(axis=1, keepdims=True)
    p = np.exp(scores)
    p /= p.sum(axis=1, keepdims=True)
    rows = np.arange(len(y))
    loss = float(-np.log(np.maximum(p[rows, y], 1e-12)).mean())
    p[rows, y] -= 1
    gradient: np.ndarray = (x.T @ p / np.float32(len(y))).ravel()
    return loss, gradient


def table(results: dict[str, Any]) -> str:
    """Return the report in Markdown without the plot."""
    machine = results["machine"]
    lines = [
        f"# Codecs\n\n`{results['command']}`: {counted(machine['cores'], 'core')} of {machine['cpu']}, "
        f"Python {machine['python']}, NumPy {machine['numpy']}; load average {results['load_at_start']}.\n",
        "| codec | weights | bytes | of float32 | encode ms (quartiles) | decode ms (quartiles) |",
        "|---|---|---|---|---|---|",
    ]
    for floats, rows in results["times"].items():
        for name, row in rows.items():
            lines.append(
                f"| {name} | {int(floats):,} | {row['bytes']:,} | {row['bytes'] / (4 * int(floats)):.3f} "
                f"| {_ms(row['encode_s'])} | {_ms(row['decode_s'])} |"
            )
    lines += ["", "| codec | test loss (quartiles) | test accuracy | pushed MB |", "|---|---|---|---|"]
    for name, runs in results["training"].items():
        loss, accuracy = spread([run["loss"] for run in runs]), spread([run["accuracy"] for run in runs])
        lines.append(
            f"| {name} | {loss['median']:.4f} ({loss['q1']:.4f}–{loss['q3']:.4f}) | {accuracy['median']:.4f} "
            f"| {runs[0]['pushed_bytes'] / 1e6:.1f} |"
        )
    return "\n".join(lines)


def plot(results: dict[str, Any], path: Path) -> bool:
    """Plot the loss by steps and by bytes; return whether matplotlib is installed."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained", sharey=True)
    for name, runs in results["training"].items():
        steps, losses = zip(*runs[0]["curve"], strict=True)
        sent = [step / steps[-1] * runs[0]["pushed_bytes"] / 1e6 for step in steps]
        left.plot(steps, losses, label=name)
        right.plot(sent, losses, label=name)
    left.set(xlabel="updates", ylabel="test loss", yscale="log", title="Softmax regression on MNIST, 4 workers in turn")
    right.set(xlabel="MB pushed", xscale="log", title="The same by bytes sent")
    left.legend()
    figure.savefig(path)
    pyplot.close(figure)
    return True


def _ms(spread: dict[str, float]) -> str:
    return f"{1e3 * spread['median']:.3g} ({1e3 * spread['q1']:.3g}–{1e3 * spread['q3']:.3g})"
