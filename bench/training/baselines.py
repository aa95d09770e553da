"""`downpour bench baselines`: compares samples/s with TensorFlow's parameter server and with `model.fit`.

Each competitor of `bench.competitors` trains the same model on the same data in new processes, with the same batch
size, learning rate, number of samples and metrics. The competitors take turns, in an order that rotates by one place
per repeat. The time of start, compilation, warm-up and evaluation is excluded:

- downpour: from the start of training, when all workers have warmed up, to the last applied sample.
- ParameterServerStrategy: from the first `schedule` after the warm-up calls until `join` returns.
- model.fit, in one process and by `downpour run`: from `on_train_begin` to `on_train_end` of the second `fit`.
- Ray and PyTorch RPC (`--peers`): from the first step of a worker after the warm-up to the last applied gradient.

Every process computes with one intra-op thread. The workers of downpour and `model.fit` also have one inter-op thread;
TensorFlow's servers hang with one and have three. The threads of tf.data and gRPC are in addition to these.
`fit_all_threads` is the exception: it uses TensorFlow's default, which is every core.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from downpour.bench.comparison import order, plan_epochs, ratios, spread, table
from downpour.bench.competitors.competitors import COMPETITORS, CompetitorError, TrainingSpec, end_on_sigterm
from downpour.bench.flags import FlagParser
from downpour.bench.machine import facts, load
from downpour.bench.peers.rows import PACKAGES, PEERS, refusal
from downpour.protos.sentences.sentence import counted
from downpour.protos.system.progress import tracked
from downpour.worker.catalog.datasets import load as load_dataset

SCHEMA = 1
EVERY = {**COMPETITORS, **PEERS}
STEPS_PER_CALL = 20
TEST_SAMPLES = 1000  # few, because the test at the end of a job is not measured
# Learning rates of SGD. The course uses 0.05 for the CNN, with which Keras diverges for some seeds.
LEARNING_RATES = {"sigmoid100": 0.1, "cnn": 0.01}
SAMPLES = {"sigmoid100": 114_000, "cnn": 12_800}
QUICK_SAMPLES = {"sigmoid100": 19_200, "cnn": 2_560}
OURS = ("downpour", "downpour_grpc", "downpour_20", "script", "script_1")
# Model, configuration of downpour, competitor -> target of the ratio of their samples/s.
TARGETS = {
    ("sigmoid100", "downpour", "tf_ps"): 5.0,
    ("sigmoid100", "downpour", "tf_ps_20"): 2.5,
    ("sigmoid100", "downpour", "fit"): 2.0,
    ("sigmoid100", "downpour", "downpour_1"): 1.85,
    ("sigmoid100", "downpour_20", "fit_20"): 1.4,
    ("sigmoid100", "downpour_grpc", "tf_ps"): 3.0,
    ("cnn", "downpour", "fit"): 1.6,
    ("sigmoid100", "script", "downpour"): 0.87,
    ("sigmoid100", "script_1", "downpour_1"): 0.87,
    ("sigmoid100", "script", "fit"): 2.0,
    ("cnn", "script", "downpour"): 0.87,
    ("cnn", "script_1", "downpour_1"): 0.87,
}


def main(argv: list[str]) -> int:
    """Measure, print a table, and write `results.json` and `report.md` if requested."""
    flags = parse(argv)
    end_on_sigterm()
    results: dict[str, Any] = {
        "schema": SCHEMA,
        "benchmark": "baselines",
        "command": " ".join(["downpour", "bench", "baselines", *argv]),
        "machine": facts(*PACKAGES if flags.peers else ()),
        "load_at_start": load(),
        "repeats": flags.repeats,
        "seeds": [flags.seed + repeat for repeat in range(flags.repeats)],
        "models": {},
    }
    for model in tracked(flags.models, "models"):
        results["models"][model] = measure(model, flags)
        found = results["models"][model]
        print(f"\n{headline(results, model)}\n\n{table(found)}\n\n{targets(model, found['ratios'])}", flush=True)
    if flags.out:
        write(results, flags.out)
    return 1 if any(model["failures"] for model in results["models"].values()) else 0


def measure(model: str, flags: argparse.Namespace) -> dict[str, Any]:
    """Run the competitors in turns on one model.

    Returns:
        The training task, the runs of each competitor with the spread of their samples/s, the ratios and the failures.
    """
    wanted = flags.samples or (QUICK_SAMPLES if flags.quick else SAMPLES)[model]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in flags.competitors}
    failures: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="downpour-bench-") as name:
        folder = Path(name)
        data, samples, epochs = write_data(folder, wanted, flags.batch_size)
        for repeat in range(flags.repeats):
            job = TrainingSpec(
                model, str(data), epochs, flags.batch_size, _learning_rate(model, flags), flags.seed + repeat
            )
            for competitor in order(flags.competitors, repeat):
                own = folder / f"{competitor}-{repeat}"
                own.mkdir()
                before = load()
                try:
                    run = EVERY[competitor].run(job, own, flags.timeout_s)
                except CompetitorError as error:
                    failures.append({"competitor": competitor, "repeat": repeat, "error": str(error)})
                    print(f"{model} {competitor} repeat {repeat}: {error}", file=sys.stderr, flush=True)
                    continue
                runs[competitor].append({"repeat": repeat, "load_before": before, **run})
                print(
                    f"{model} {competitor} repeat {repeat}: {run['samples_per_s']:,.0f} samples/s",
                    file=sys.stderr,
                    flush=True,
                )
    return {
        "job": {**asdict(job), "data": f"first {samples} training samples of mnist"},
        "batch_size": flags.batch_size,
        "epoch_samples": samples,
        "samples": samples * epochs,
        **collect(runs),
        "failures": failures,
    }


def collect(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return the runs with their spread, and the ratios of downpour's rates to all others."""
    done = {name: found for name, found in runs.items() if found}
    return {
        "competitors": {
            name: {
                "what": EVERY[name].what,
                "samples_per_s": spread([run["samples_per_s"] for run in found]),
                "runs": found,
            }
            for name, found in done.items()
        },
        "ratios": {ours: ratios(done, ours) for ours in OURS if ours in done},
    }


def write_data(folder: Path, samples: int, batch_size: int) -> tuple[Path, int, int]:
    """Write the data for all competitors; return the file, its number of training samples, and the epochs."""
    mnist = load_dataset("mnist")
    count, epochs = plan_epochs(samples, batch_size, STEPS_PER_CALL, len(mnist.x_train))
    path = folder / "mnist.npz"
    np.savez(
        path,
        x_train=mnist.x_train[:count],
        y_train=mnist.y_train[:count],
        x_test=mnist.x_test[:TEST_SAMPLES],
        y_test=mnist.y_test[:TEST_SAMPLES],
    )
    return path, count, epochs


def headline(results: dict[str, Any], model: str) -> str:
    """Return the line above the table of a model."""
    machine, measured = results["machine"], results["models"][model]
    return (
        f"{model}, batch {measured['batch_size']}, {measured['samples']:,} samples, "
        f"{counted(results['repeats'], 'repeat')}, {counted(machine['cores'], 'core')} of {machine['cpu']}, "
        f"TensorFlow {machine['tensorflow']}, Keras {machine['keras']}"
    )


def targets(model: str, found: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return the targets and the measured ratios in Markdown."""
    lines = ["| compared | ratio | target | met |", "|---|---|---|---|"]
    for (of, ours, other), aim in TARGETS.items():
        ratio = found.get(ours, {}).get(other)
        if of == model and ratio:
            times, met = ratio["median"], "yes" if ratio["median"] >= aim else "no"
            lines.append(f"| {COMPETITORS[ours].what} / {COMPETITORS[other].what} | {times:.2f} | {aim:g} | {met} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def write(results: dict[str, Any], out: Path) -> None:
    """Write the results to `results.json` and the tables to `report.md` in a folder."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    parts = [f"# Baselines\n\n`{results['command']}`"]
    for name, found in results["models"].items():
        parts.append(f"## {headline(results, name)}\n\n{table(found)}\n\n{targets(name, found['ratios'])}")
    (out / "report.md").write_text("\n\n".join([*parts, "## How", str(__doc__)]))


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the flags and complete `models`, `competitors` and `repeats`."""
    parser = FlagParser(prog="downpour bench baselines", description="Compare samples/s with TensorFlow and Keras.")
    parser.add_argument(
        "--model", choices=[*SAMPLES, "both"], help="Model of the training (default: both; with --quick sigmoid100)."
    )
    parser.add_argument("--samples", type=_positive, help="Number of training samples, rounded up to whole calls.")
    parser.add_argument("--batch-size", type=_positive, default=32, help="Number of samples of a step (default: 32).")
    parser.add_argument(
        "--learning-rate", type=float, help=f"Learning rate of SGD (default: {_of_models(LEARNING_RATES)})."
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="Seed of the first repeat; it increases by 1 per repeat (default: 0)."
    )
    parser.add_argument(
        "--repeats", type=_positive, help="Number of runs of each competitor (default: 3; with --quick 1)."
    )
    parser.add_argument(
        "--competitors",
        type=_competitors,
        default=list(COMPETITORS),
        metavar="NAME,NAME",
        help=f"Competitors, separated by commas (default: all): {', '.join(COMPETITORS)}.",
    )
    parser.add_argument(
        "--peers",
        action="store_true",
        help="Also measure parameter servers of Ray and of PyTorch RPC, which the extra peers installs.",
    )
    parser.add_argument(
        "--timeout-s", type=float, default=600.0, help="Time limit of one run in seconds (default: 600)."
    )
    parser.add_argument("--quick", action="store_true", help="Measure few samples, once.")
    parser.add_argument("--out", type=Path, metavar="DIR", help="Folder for results.json, report.md and report.html.")
    flags = parser.parse_args(argv)
    if flags.peers:
        if missing := refusal():
            parser.error(missing)
        flags.competitors = [*flags.competitors, *PEERS]
    chosen = flags.model or ("sigmoid100" if flags.quick else "both")
    flags.models = list(SAMPLES) if chosen == "both" else [chosen]
    flags.repeats = flags.repeats or (1 if flags.quick else 3)
    return flags


def _learning_rate(model: str, flags: argparse.Namespace) -> float:
    return LEARNING_RATES[model] if flags.learning_rate is None else flags.learning_rate


def _positive(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 1; received {text!r}")
    return value


def _of_models(values: dict[str, float]) -> str:
    return ", ".join(f"{value:g} for {name}" for name, value in values.items())


def _competitors(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in COMPETITORS]:
        raise argparse.ArgumentTypeError(
            f"must be one or more of {', '.join(COMPETITORS)}, separated by commas; received {', '.join(unknown)}"
        )
    return names


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
