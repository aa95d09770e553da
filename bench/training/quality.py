"""`downpour bench quality`: compares the test accuracy with single-process Keras.

The reference model is trained on MNIST by `model.fit` in one process, and by this system with several numbers of
workers, with the same seeds, epochs, batch size, learning rate and 5 % of the training data held out. Keras's seed is
set with `keras.utils.set_random_seed`. The mean over the seeds may be lower than Keras's by at most `ALLOWED`.

The arguments after `--` are passed to every `downpour train`: `downpour bench quality -- --mode ssp:3`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from downpour.bench.competitors.competitors import CompetitorError, TrainingSpec, end_on_sigterm, fit, train
from downpour.bench.flags import FlagParser
from downpour.bench.machine import facts
from downpour.bench.training.seeds import KERAS, numbers, run_all, spreads
from downpour.protos.sentences.sentence import counted

SCHEMA = 1
# Workers -> largest allowed difference to Keras's mean test accuracy; other numbers are reported without a verdict.
ALLOWED: Mapping[int, float] = {2: 0.001, 4: 0.004, 8: 0.004}


def main(argv: list[str]) -> int:
    """Train, print the table, and write `results.json` and `report.md` if requested; return 1 if a row fails."""
    flags = parse(argv)
    end_on_sigterm()
    runs = run_all(
        flags.seeds,
        flags.workers,
        lambda name, seed: run(name, seed, flags),
        lambda found: f"{found['test_accuracy']:.4f}",
    )
    rows = judge(runs.found)
    print(f"\n{table(rows)}")
    if flags.out:
        job = ("model", "dataset", "epochs", "batch_size", "learning_rate", "validation_split", "seeds")
        results = {
            "schema": SCHEMA,
            "benchmark": "quality",
            "command": " ".join(["downpour", "bench", "quality", *argv]),
            "machine": facts(),
            "job": {name: getattr(flags, name) for name in (*job, "train_flags")},
            "rows": rows,
            "failures": runs.failures,
        }
        flags.out.mkdir(parents=True, exist_ok=True)
        (flags.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
        report = f"# Quality\n\n`{results['command']}`\n\n{table(rows)}\n\n{__doc__}"
        (flags.out / "report.md").write_text(report)
    return 1 if runs.failures or any(row["passed"] is False for row in rows.values()) else 0


def run(name: str, seed: int, flags: argparse.Namespace) -> dict[str, Any]:
    """Train once, by Keras or with the number of workers in `name`.

    Returns:
        `test_accuracy`, `samples_per_s`, and `mean_staleness` (None for Keras).
    """
    job = TrainingSpec(
        flags.model,
        flags.dataset,
        flags.epochs,
        flags.batch_size,
        flags.learning_rate,
        seed,
        workers=0 if name == KERAS else int(name),
        validation_split=flags.validation_split,
    )
    if name == KERAS:
        result = fit(job, flags.timeout_s, extra=("--evaluate", "--warmup-calls", "0"))
    else:
        with tempfile.TemporaryDirectory(prefix="downpour-bench-") as folder:
            result = train(job, Path(folder), flags.timeout_s, flags.train_flags)
    if result.get("test_accuracy") is None:
        raise CompetitorError("a run must report a test accuracy. Received: none. See its log.")
    return {
        **{key: result[key] for key in ("test_accuracy", "samples_per_s")},
        "mean_staleness": (result.get("staleness") or {}).get("mean"),
    }


def judge(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Return per row the mean test accuracy, its difference to Keras's for the same seeds, and the verdict.

    Args:
        runs: The runs per row (`keras`, or a number of workers), with `seed` and `test_accuracy`.
    """
    rows = {}
    for name, spread in spreads(runs, "test_accuracy").items():
        allowed = None if name == KERAS else ALLOWED.get(int(name))
        rows[name] = {
            "mean_test_accuracy": spread.mean,
            "std_test_accuracy": spread.std,
            "gap": spread.gap,
            "allowed_gap": allowed,
            "passed": None if allowed is None else spread.gap <= allowed,
            "by_seed": spread.values,
            "runs": runs[name],
        }
    return rows


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a Markdown table with a row for Keras and for each number of workers."""
    lines = [
        "| | mean test accuracy (standard deviation) | by seed | below Keras by | allowed | |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        what = "model.fit, one process" if name == KERAS else f"downpour, {counted(int(name), 'worker')}"
        seeds = ", ".join(f"{value:.4f}" for value in row["by_seed"])
        gap = "" if name == KERAS else f"{row['gap']:+.4f}"
        allowed = "" if row["allowed_gap"] is None else f"{row['allowed_gap']}"
        verdict = {None: "", True: "passed", False: "FAILED"}[row["passed"]]
        lines.append(
            f"| {what} | {row['mean_test_accuracy']:.4f} ({row['std_test_accuracy']:.4f}) | {seeds} "
            f"| {gap} | {allowed} | {verdict} |"
        )
    return "\n".join(lines)


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the flags; `train_flags` are the arguments after `--`."""
    cut = argv.index("--") if "--" in argv else len(argv)
    parser = FlagParser(
        prog="downpour bench quality",
        description="Compare test accuracy with single-process Keras.",
        epilog="The arguments after -- are passed to every `downpour train`.",
    )
    parser.add_argument(
        "--seeds", type=numbers, default=[0, 1, 2, 3, 4], help="Seeds, such as 0-4 or 0,3 (default: 0-4)."
    )
    parser.add_argument(
        "--workers", type=numbers, default=[2, 4, 8], help="Numbers of workers, such as 2,4,8,16 (default: 2,4,8)."
    )
    parser.add_argument("--model", default="sigmoid100", help="Name of a model (default: sigmoid100).")
    parser.add_argument("--dataset", default="mnist", help="Name of a dataset (default: mnist).")
    parser.add_argument("--epochs", type=int, default=10, help="Number of epochs (default: 10).")
    parser.add_argument("--batch-size", type=int, default=32, help="Number of samples of a step (default: 32).")
    parser.add_argument("--learning-rate", type=float, default=0.1, help="Learning rate (default: 0.1).")
    parser.add_argument(
        "--validation-split",
        type=float,
        default=0.05,
        help="Fraction of the training data that is held out (default: 0.05).",
    )
    parser.add_argument(
        "--timeout-s", type=float, default=1200.0, help="Time limit of one training in seconds (default: 1200)."
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="Folder for results.json, report.md and report.html.")
    flags = parser.parse_args(argv[:cut])
    flags.train_flags = tuple(argv[cut + 1 :])
    return flags


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
