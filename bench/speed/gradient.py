"""`downpour bench gradient`: compares a worker's step with the plain `tf.function`.

`ours` is `GradientFunction`: its inputs are the weights as a NumPy vector and sample numbers, its outputs the gradient
as a NumPy vector, loss, norm and number of correct samples. `bare` is the same function called as in TensorFlow's
guide: its inputs are weights, samples and classes as NumPy arrays, its outputs are converted with `.numpy()`. `local`
is one of many steps in one call of `LocalSteps`. Each is measured with and without XLA, in bursts that take turns, by
CPU time and by wall time; the table contains medians over the bursts. The copies are those of the flat vector between
NumPy, TensorFlow and the transport.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from downpour.bench import report
from downpour.bench.flags import FlagParser
from downpour.bench.machine import load
from downpour.protos.system.progress import tracked

COPIES = {"ours": (1, 0), "bare": (1, 1), "local": (1, 0)}  # in: the weights; out: the gradient
BURST = 8


def main(argv: list[str]) -> int:
    """Measure, print the tables, and write the report if requested."""
    flags = _parser().parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    models = {name: measure(name, flags) for name in tracked(flags.models.split(","), "models")}
    tables = [_table(name, rows, flags) for name, rows in models.items()]
    print("\n".join(tables))
    if flags.out:
        results = {**report.results_header("gradient", argv), "models": models, "load_at_end": load()}
        text = "\n\n".join([report.head(results, "A worker's step"), *(f"```\n{one}\n```" for one in tables)])
        report.write(flags.out, results, text, {}, __doc__ or "")
    return 0


def measure(name: str, flags: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return the times of one step by form: `cpu_ms`, `wall_ms` and `first_call_s`."""
    forms = _forms(name, flags)
    first = {}
    for form, (call, _) in forms.items():
        start = time.perf_counter()
        call()
        first[form] = time.perf_counter() - start
    times: dict[str, list[tuple[float, float]]] = {form: [] for form in forms}
    until, rounds = time.perf_counter() + flags.seconds, 0
    while rounds < 3 or time.perf_counter() < until:
        rounds += 1
        for form, (call, steps) in forms.items():
            times[form].append(_burst(call, steps))
    return {
        form: {
            "cpu_ms": 1000 * median(cpu for cpu, _ in measured),
            "wall_ms": 1000 * median(wall for _, wall in measured),
            "first_call_s": first[form],
            "rounds": rounds,
        }
        for form, measured in times.items()
    }


def _burst(call: Callable[[], object], steps: int) -> tuple[float, float]:
    """Return CPU and wall time of a step in s; the first call is not measured because caches are cold."""
    call()
    calls = max(1, BURST // steps)
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(calls):
        call()
    return (time.process_time() - cpu) / (calls * steps), (time.perf_counter() - wall) / (calls * steps)


def _forms(name: str, flags: argparse.Namespace) -> dict[str, tuple[Callable[[], object], int]]:
    """Return the measured calls by form, with the number of steps in each."""
    import tensorflow as tf

    from downpour.worker.catalog.datasets import load
    from downpour.worker.catalog.models import build
    from downpour.worker.compute.gradient import GradientFunction, read_weights
    from downpour.worker.compute.local_steps import LocalSteps

    tf.config.threading.set_intra_op_parallelism_threads(flags.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    dataset = load(flags.data)
    model = build(name, dataset.input_shape, dataset.classes)
    flat, draw = read_weights(model), np.random.default_rng(0)
    batch, steps = flags.batch_size, flags.local_steps
    forms: dict[str, tuple[Callable[[], object], int]] = {}

    def indices(count: int) -> Any:
        return draw.integers(0, len(dataset.x_train), count, dtype=np.int32)

    for form, xla in (("plain", False), ("xla", True)):
        ours = GradientFunction(model, dataset, batch)
        ours.select_form(xla)
        local = LocalSteps(ours, learning_rate=1e-3, most=steps)
        local.select_form(xla)
        bare = tf.function(_bare(ours), autograph=False, jit_compile=xla or None)
        forms[f"bare {form}"] = (partial(_call_bare, bare, flat, dataset, batch), 1)
        forms[f"ours {form}"] = (partial(_call, ours, flat, indices, batch), 1)
        forms[f"local {form}"] = (partial(_call, local, flat, indices, batch * local.most), local.most)
    return forms


def _call(steps: Any, flat: Any, indices: Callable[[int], Any], count: int) -> object:
    return steps(flat, indices(count))


def _call_bare(step: Any, flat: Any, dataset: Any, batch: int) -> object:
    return [tensor.numpy() for tensor in step(flat, dataset.x_train[:batch], dataset.y_train[:batch])]


def _bare(ours: Any) -> Callable[..., Any]:
    """Return the same computation as a function of arrays."""
    import tensorflow as tf

    from downpour.worker.compute.flat_model import flattened
    from downpour.worker.compute.norms import norm_of

    def step(flat: Any, x: Any, y: Any) -> Any:
        scaled = tf.cast(x, tf.float32) * ours.data.scale
        back = ours.model.backward(*ours.model.pieces(flat), scaled, y, None)
        gradient = tf.concat([*flattened(back.gradients), *flattened(back.state)], 0)
        return gradient, back.loss, norm_of(back.gradients), back.correct

    return step


def _table(name: str, rows: dict[str, dict[str, float]], flags: argparse.Namespace) -> str:
    head = f"{name}, batch {flags.batch_size}, {flags.threads} thread(s): one step"
    lines = [head, f"{'':14}{'cpu':>9}{'wall':>11}{'cpu/bare':>10}{'copies in, out':>16}{'first call':>12}"]
    for form, row in rows.items():
        kind, compiled = form.split()
        bare = rows[f"bare {compiled}"]["cpu_ms"]
        copies = ", ".join(map(str, COPIES[kind]))
        lines.append(
            f"{form:14}{row['cpu_ms']:>6.3f} ms{row['wall_ms']:>8.3f} ms{row['cpu_ms'] / bare:>10.2f}"
            f"{copies:>16}{row['first_call_s']:>10.2f} s"
        )
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = FlagParser(prog="downpour bench gradient", description="Time a worker's step.")
    parser.add_argument(
        "--models", default="sigmoid100,cnn", help="Names of models, separated by commas (default: sigmoid100,cnn)."
    )
    parser.add_argument("--data", default="mnist", help="Name of a dataset, or an .npz file (default: mnist).")
    parser.add_argument("--batch-size", type=int, default=32, help="Number of samples of a step (default: 32).")
    parser.add_argument("--local-steps", type=int, default=20, help="Steps in one call of `local` (default: 20).")
    parser.add_argument("--threads", type=int, default=1, help="TensorFlow's intra-op threads (default: 1).")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="Duration of the measurement of a model in seconds (default: 20)."
    )
    parser.add_argument("--quick", dest="seconds", action="store_const", const=5.0, help="Measure each model for 5 s.")
    parser.add_argument("--out", type=Path, metavar="DIR", help="Folder for results.json, report.md and report.html.")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
