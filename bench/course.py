"""The models of the course, each beside single-process Keras: `downpour bench course [MODEL ...] [--workers 2,4]`.

Every model is trained with the settings that `downpour train --model MODEL` has for it: by `model.fit` in one process,
and by servers with several numbers of workers, asynchronously; same seed, data, batch and epochs. Both are evaluated
by the same code on the test set. A classifier may be below Keras's by what its row allows, a loss above by a factor;
a truth table is learned by both or by neither.

What follows `--` goes to every `downpour train`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contenders import ContenderError, Job, end_on_sigterm, fit, train
from bench.machine import facts
from bench.quality import numbers
from deploy.config import TrainSettings
from protos.settings import parse as parse_settings
from worker.course_data import closed_form, plane
from worker.course_models import ACTIVATIONS

SCHEMA = 1
LEARNED = 1.0  # accuracy of a truth table


@dataclass(frozen=True)
class Row:
    """One model on one dataset.

    Attributes:
        measure: `test_accuracy`, or `test_loss`.
        allowed: How far below Keras's accuracy, or by which factor above its loss; None: a truth table.
        figure: What the course's notes say, or theory.
    """

    model: str
    dataset: str
    measure: str
    allowed: float | None
    figure: str


def _perceptrons() -> Iterator[Row]:
    for activation in ACTIVATIONS:
        name = "perceptron" if activation == "step" else f"perceptron_{activation}"
        for table in ("and", "or", "xor"):
            figure = "impossible for one unit" if table == "xor" else "learned"
            yield Row(name, table, "test_accuracy", None, figure)


ROWS = (
    Row("sigmoid100", "mnist", "test_accuracy", 0.004, "0.960"),
    Row("bn_selu", "mnist", "test_accuracy", 0.003, "0.9729"),
    Row("cnn", "mnist", "test_accuracy", 0.003, "0.9845 in 2 epochs"),
    Row("fashion128", "fashion_mnist", "test_accuracy", 0.01, "about 0.87"),
    *_perceptrons(),
    *(Row(name, "xor", "test_accuracy", None, "learned") for name in ("xor_mlp", "xor_mlp_sigmoid", "xor_mlp_relu")),
    Row("regression", "plane", "test_loss", 1.1, f"least squares: {closed_form(plane())[1]:.5f}"),
    Row("svm", "mnist", "test_accuracy", 0.005, "about 0.91"),
    Row("svr", "plane", "test_loss", 1.1, ""),
)


def main(argv: list[str]) -> int:
    """Trains, prints the table, and writes `results.json` and `report.md` where asked; 1 if a row fails."""
    flags = parse(argv)
    end_on_sigterm()
    rows = [measured(row, flags) for row in ROWS if row.model in flags.models]
    print(f"\n{table(rows, flags.workers)}")
    if flags.out:
        command = " ".join(["downpour", "bench", "course", *argv])
        results = {"schema": SCHEMA, "benchmark": "course", "command": command, "machine": facts(), "rows": rows}
        flags.out.mkdir(parents=True, exist_ok=True)
        (flags.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
        (flags.out / "report.md").write_text(f"# Course\n\n`{command}`\n\n{table(rows, flags.workers)}\n\n{__doc__}")
    return 0 if all(row["passed"] for row in rows) else 1


def measured(row: Row, flags: argparse.Namespace) -> dict[str, Any]:
    """A row's settings, what Keras and the workers reached, and whether that is allowed."""
    settings = parse_settings(TrainSettings, [f"--model={row.model}", f"--dataset={row.dataset}"], "downpour train")
    found: dict[str, Any] = {}
    for name in ("keras", *map(str, flags.workers)):
        try:
            found[name] = run(name, settings, flags)
        except ContenderError as error:
            found[name] = {"error": str(error)}
        print(f"{row.model} on {row.dataset}, {name}: {json.dumps(found[name])}", file=sys.stderr, flush=True)
    passed = all(holds(row, found["keras"], found[str(count)]) for count in flags.workers)
    return {
        "model": row.model, "dataset": row.dataset, "measure": row.measure, "allowed": row.allowed,
        "figure": row.figure, "epochs": settings.epochs, "optimizer": settings.optimizer,
        "learning_rate": settings.effective_learning_rate, "found": found, "passed": passed,
    }  # fmt: skip


def run(name: str, settings: TrainSettings, flags: argparse.Namespace) -> dict[str, Any]:
    """Trains once, by Keras or by as many workers as the name says."""
    job = Job(
        settings.model, settings.dataset, settings.epochs, settings.batch_size, settings.effective_learning_rate,
        flags.seed, workers=0 if name == "keras" else int(name), validation_split=settings.validation_split,
    )  # fmt: skip
    early = ("--early-stopping", str(settings.early_stopping))
    extra: tuple[str, ...] = ("--optimizer", settings.optimizer, *early)
    extra += ("--momentum", str(settings.momentum)) if settings.momentum is not None else ()
    if name == "keras":
        result = fit(job, flags.timeout_s, extra=("--evaluate", "--warmup-calls", "0", *extra))
        return {key: result[key] for key in ("test_accuracy", "test_loss", "epochs", "samples_per_s")}
    with tempfile.TemporaryDirectory(prefix="downpour-bench-") as folder:
        result = train(job, Path(folder), flags.timeout_s, (*extra, *flags.train_flags))
    kept = {key: result[key] for key in ("test_accuracy", "test_loss", "samples_per_s")}
    more = {"mean_staleness": result["staleness"]["mean"], "communication_share": result["communication_share"]}
    return {**kept, "epochs": len(result["history"]), **more}


def holds(row: Row, keras: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
    """Whether what workers reached is allowed, given what Keras did."""
    theirs, mine = keras.get(row.measure), ours.get(row.measure)
    if theirs is None or mine is None:
        return False
    if row.allowed is None:
        return bool((theirs >= LEARNED) == (mine >= LEARNED) == (row.figure == "learned"))
    return bool(mine >= theirs - row.allowed if row.measure == "test_accuracy" else mine <= theirs * row.allowed)


def table(rows: list[dict[str, Any]], workers: list[int]) -> str:
    """Markdown: a line for each row."""
    heads = [
        "model",
        "data",
        "settings",
        "",
        "figure",
        "Keras",
        *(f"{count} workers" for count in workers),
        "allowed",
        "",
    ]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        form = ".4f" if row["measure"] == "test_accuracy" else ".5f"
        settings = f"{row['optimizer']} {row['learning_rate']:g}, {row['epochs']} epochs"
        cells = [row["model"], row["dataset"], settings, row["measure"].replace("_", " "), row["figure"]]
        for name in ("keras", *map(str, workers)):
            value = row["found"][name].get(row["measure"])
            cells.append("failed" if value is None else format(value, form))
        allowed = (
            "as Keras" if row["allowed"] is None else f"− {row['allowed']}" if form == ".4f" else f"× {row['allowed']}"
        )
        cells += [allowed, "passed" if row["passed"] else "FAILED"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def parse(argv: list[str]) -> argparse.Namespace:
    """Reads the flags; `train_flags` is what follows `--`."""
    cut = argv.index("--") if "--" in argv else len(argv)
    known = list(dict.fromkeys(row.model for row in ROWS))
    parser = argparse.ArgumentParser(
        prog="downpour bench course",
        description="Trains the course's models beside single-process Keras.",
        epilog="What follows -- goes to every `downpour train`.",
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(known)} (default: all)")
    parser.add_argument("--workers", type=numbers, default=[2, 4], help="such as 2,4")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout-s", type=float, default=1200.0, help="limit of one training")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write results.json and report.md here")
    flags = parser.parse_args(argv[:cut])
    if unknown := [name for name in flags.models if name not in known]:
        parser.error(f"MODEL must be of {', '.join(known)}; received {', '.join(unknown)}")
    flags.models = flags.models or known
    flags.train_flags = tuple(argv[cut + 1 :])
    return flags


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
