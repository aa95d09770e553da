"""`downpour bench course`: compares every model of the course with single-process Keras.

Every model is trained with the settings that `downpour train --model MODEL` uses: by `model.fit` in one process, and
asynchronously with several numbers of workers, with the same seeds, data, batch size, schedule and epochs. Both are
evaluated by the same code on the test set. The verdict concerns means over the seeds: an accuracy may be lower than
Keras's by the difference in the row, and a loss higher by the factor in the row. A truth table must be learned by both
with every seed, or by neither with any. The standard deviation of single runs is given in brackets.

The arguments after `--` are passed to every `downpour train`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from downpour.bench.competitors.competitors import TrainingSpec, end_on_sigterm, fit, train
from downpour.bench.flags import FlagParser
from downpour.bench.machine import facts
from downpour.bench.training.seeds import KERAS, Spread, numbers, run_all, spreads
from downpour.deploy.config import TrainSettings
from downpour.protos.sentences.sentence import counted
from downpour.protos.settings import parse as parse_settings
from downpour.worker.catalog.course_models import ACTIVATIONS
from downpour.worker.catalog.synthetic import closed_form, plane

SCHEMA = 2
LEARNED = 1.0  # accuracy of a truth table


@dataclass(frozen=True)
class CourseEntry:
    """A model on a dataset, with the criterion of the comparison.

    Attributes:
        model: The name of the model.
        dataset: The name of the dataset.
        measure: `test_accuracy` or `test_loss`.
        allowed: The largest difference to Keras's accuracy, or largest factor to its loss; None for a truth table.
        figure: The value in the course's notes, or from theory.
    """

    model: str
    dataset: str
    measure: str
    allowed: float | None
    figure: str


def _perceptrons() -> Iterator[CourseEntry]:
    for activation in ACTIVATIONS:
        name = "perceptron" if activation == "step" else f"perceptron_{activation}"
        for table in ("and", "or", "xor"):
            figure = "impossible for one unit" if table == "xor" else "learned"
            yield CourseEntry(name, table, "test_accuracy", None, figure)


ROWS = (
    CourseEntry("sigmoid100", "mnist", "test_accuracy", 0.004, "0.960"),
    CourseEntry("bn_selu", "mnist", "test_accuracy", 0.003, "0.9729"),
    CourseEntry("cnn", "mnist", "test_accuracy", 0.003, "0.9845 in 2 epochs"),
    CourseEntry("fashion128", "fashion_mnist", "test_accuracy", 0.01, "about 0.87"),
    *_perceptrons(),
    *(
        CourseEntry(name, "xor", "test_accuracy", None, "learned")
        for name in ("xor_mlp", "xor_mlp_sigmoid", "xor_mlp_relu")
    ),
    CourseEntry("regression", "plane", "test_loss", 1.1, f"least squares: {closed_form(plane())[1]:.5f}"),
    CourseEntry("svm", "mnist", "test_accuracy", 0.005, "about 0.91"),
    CourseEntry("svr", "plane", "test_loss", 1.1, ""),
)


def main(argv: list[str]) -> int:
    """Train, print the tables, and write `results.json` and `report.md` if requested; return 1 if a row fails."""
    flags = parse(argv)
    end_on_sigterm()
    command = " ".join(["downpour", "bench", "course", *argv])
    rows: list[dict[str, Any]] = []
    for row in (row for row in ROWS if row.model in flags.models):
        rows.append(measured(row, flags))
        if flags.out:  # after every row, so that an interrupted benchmark keeps its results
            results = {"schema": SCHEMA, "benchmark": "course", "command": command, "machine": facts(), "rows": rows}
            flags.out.mkdir(parents=True, exist_ok=True)
            (flags.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
            (flags.out / "report.md").write_text(f"# Course\n\n`{command}`\n\n{report(rows, flags)}\n\n{__doc__}")
    print(f"\n{report(rows, flags)}")
    return 0 if all(row["passed"] for row in rows) else 1


def measured(row: CourseEntry, flags: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of a row, the results of Keras and the workers for each seed, and the verdict."""
    settings = parse_settings(TrainSettings, [f"--model={row.model}", f"--dataset={row.dataset}"], "downpour train")
    print(f"{row.model} on {row.dataset}", file=sys.stderr)
    runs = run_all(flags.seeds, flags.workers, lambda name, seed: run(name, seed, settings, flags), json.dumps)
    found = spreads(runs.found, row.measure)
    passed = not runs.failures and all(holds(row, found[str(count)]) for count in flags.workers)
    return {
        "model": row.model, "dataset": row.dataset, "measure": row.measure, "allowed": row.allowed,
        "figure": row.figure, "settings": settings_text(settings), "runs": runs.found, "failures": runs.failures,
        "found": {name: {"mean": each.mean, "std": each.std, "by_seed": each.values} for name, each in found.items()},
        "passed": passed,
    }  # fmt: skip


def run(name: str, seed: int, settings: TrainSettings, flags: argparse.Namespace) -> dict[str, Any]:
    """Train once, by Keras or with the number of workers in `name`."""
    job = TrainingSpec(
        settings.model, settings.dataset, settings.epochs, settings.batch_size, settings.effective_learning_rate,
        seed, workers=0 if name == KERAS else int(name), validation_split=settings.validation_split,
    )  # fmt: skip
    extra: tuple[str, ...] = ("--optimizer", settings.optimizer, "--early-stopping", str(settings.early_stopping))
    extra += ("--schedule", settings.schedule, "--clip-norm", str(settings.clip_norm))
    extra += ("--momentum", str(settings.momentum)) if settings.momentum is not None else ()
    if name == KERAS:
        result = fit(job, flags.timeout_s, extra=("--evaluate", "--warmup-calls", "0", *extra))
        return {key: result[key] for key in ("test_accuracy", "test_loss", "epochs", "samples_per_s")}
    with tempfile.TemporaryDirectory(prefix="downpour-bench-") as folder:
        result = train(job, Path(folder), flags.timeout_s, (*extra, *flags.train_flags))
    kept = {key: result[key] for key in ("test_accuracy", "test_loss", "samples_per_s")}
    more = {"mean_staleness": result["staleness"]["mean"], "communication_share": result["communication_share"]}
    return {**kept, "epochs": len(result["history"]), **more}


def settings_text(settings: TrainSettings) -> str:
    """Return the settings that are shown in the tables."""
    parts = [f"{settings.optimizer} {settings.effective_learning_rate:g}"]
    parts += [settings.schedule] if settings.schedule != "constant" else []
    parts += [f"clip {settings.clip_norm:g}"] if settings.clip_norm else []
    return ", ".join([*parts, counted(settings.epochs, "epoch")])


def holds(row: CourseEntry, found: Spread) -> bool:
    """Return whether the results of workers are acceptable, given Keras's results for the same seeds."""
    if row.allowed is None:
        learned = {value >= LEARNED for value in (*found.values, *found.reference)}
        return learned == {row.figure == "learned"}
    if row.measure == "test_accuracy":
        return found.gap <= row.allowed
    return found.mean <= (found.mean + found.gap) * row.allowed


def report(rows: list[dict[str, Any]], flags: argparse.Namespace) -> str:
    """Return a table of means, a table of all runs, and the failures, in Markdown."""
    names = [KERAS, *map(str, flags.workers)]
    heads = ["Keras", *(counted(count, "worker") for count in flags.workers)]
    means = [["model", "data", "settings", "", "figure", *heads, "allowed", ""]]
    each = [["model", "data", "", *(f"{head}: seeds {', '.join(map(str, flags.seeds))}" for head in heads)]]
    for row in rows:
        form = ".4f" if row["measure"] == "test_accuracy" else ".5f"
        sign = "as Keras" if row["allowed"] is None else f"{'−' if form == '.4f' else '×'} {row['allowed']}"
        what, verdict = row["measure"].replace("_", " "), "passed" if row["passed"] else "FAILED"
        cells = [_mean(row["found"].get(name), form) for name in names]
        means.append([row["model"], row["dataset"], row["settings"], what, row["figure"], *cells, sign, verdict])
        by_seed = [", ".join(_by_seed(row, name, form, flags.seeds)) for name in names]
        each.append([row["model"], row["dataset"], what, *by_seed])
    failures = [f"- {row['model']}, {each['row']}, seed {each['seed']}: {each['error']}"
                for row in rows for each in row["failures"]]  # fmt: skip
    return "\n\n".join([_table(means), _table(each), *(["\n".join(failures)] if failures else [])])


def _mean(found: dict[str, Any] | None, form: str) -> str:
    if found is None:
        return "failed"
    mean = format(found["mean"], form)
    return mean if len(found["by_seed"]) == 1 else f"{mean} ({found['std']:{form}})"


def _by_seed(row: dict[str, Any], name: str, form: str, seeds: list[int]) -> Iterator[str]:
    found = {run["seed"]: run[row["measure"]] for run in row["runs"][name]}
    return (format(found[seed], form) if seed in found else "failed" for seed in seeds)


def _table(lines: list[list[str]]) -> str:
    """Return a Markdown table whose first line is the header."""
    ruled = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in ruled)


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the flags; `train_flags` are the arguments after `--`."""
    cut = argv.index("--") if "--" in argv else len(argv)
    known = list(dict.fromkeys(row.model for row in ROWS))
    parser = FlagParser(
        prog="downpour bench course",
        description="Compare the course's models with single-process Keras.",
        epilog="The arguments after -- are passed to every `downpour train`.",
    )
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help=f"Models to train (default: all): {', '.join(known)}."
    )
    parser.add_argument("--workers", type=numbers, default=[2, 4], help="Numbers of workers (default: 2,4).")
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2], help="Seeds, such as 0-4 or 0,3 (default: 0-2).")
    parser.add_argument(
        "--timeout-s", type=float, default=1200.0, help="Time limit of one training in seconds (default: 1200)."
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="Folder for results.json, report.md and report.html.")
    flags = parser.parse_args(argv[:cut])
    if unknown := [name for name in flags.models if name not in known]:
        parser.error(f"MODEL must be one of {', '.join(known)}; received {', '.join(unknown)}")
    flags.models = flags.models or known
    flags.train_flags = tuple(argv[cut + 1 :])
    return flags


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
