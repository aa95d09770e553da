"""`downpour bench launchers`: runs the same job with each launcher and compares samples/s with `downpour train`.

Two workers and one server train the reference model on MNIST. The rates are those of `summary.json`, which exclude the
start of the processes and compilation. Containers share no memory, so the other launchers also run with gRPC only,
which separates the effect of the launcher from that of the transport. With --compose, the images must exist and
DOCKER_HOST must name the engine: `make compose-test ARGS="--engine DIR --only tls"` leaves both
(DOCKER_HOST=unix://DIR/docker.sock).
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from downpour.bench import report
from downpour.bench.flags import FlagParser
from downpour.bench.machine import load
from downpour.deploy.launch.started_job import LaunchRequest
from downpour.deploy.launchers import LAUNCHERS
from downpour.protos.system.progress import tracked

LIMIT_S = 600.0
REFERENCE = "train"
Measure = Callable[[Path], float]  # an empty folder -> samples/s


def main(argv: list[str]) -> int:
    """Measure, print the table, and write the report if requested."""
    flags = _flags(argv)
    results = report.results_header("launchers", argv)
    launchers = measurements(flags)
    rates: dict[str, list[float]] = {name: [] for name in launchers}
    for repeat in tracked(range(flags.repeats), "repeats"):
        for name, measure in launchers.items():
            with tempfile.TemporaryDirectory() as folder:
                rates[name].append(measure(Path(folder)))
            print(f"{repeat + 1} of {flags.repeats}: {name}: {rates[name][-1]:,.0f} samples/s", file=sys.stderr)
    results["samples_per_s"], results["load_at_end"] = rates, load()
    text = table(results)
    print(text)
    if flags.out:
        report.write(flags.out, results, text, {}, __doc__ or "")
    return 0


def measurements(flags: argparse.Namespace) -> dict[str, Measure]:
    """Return the measurements by name; the others are compared with `REFERENCE`."""
    job = (f"--epochs={flags.epochs}", "--learning-rate=0.5")
    local = [name for name, entry in LAUNCHERS.items() if not entry.in_containers and not entry.engine]
    found: dict[str, Measure] = {name: partial(samples_per_s, name, job) for name in local}
    found |= {f"{name}, gRPC only": partial(samples_per_s, name, (*job, "--transport=grpc")) for name in local}
    if flags.compose:
        command = tuple(shlex.split(flags.compose))
        containers = [name for name, entry in LAUNCHERS.items() if entry.in_containers]
        found |= {name: partial(samples_per_s, name, job, compose=command) for name in containers}
    return found


def samples_per_s(name: str, job: tuple[str, ...], folder: Path, compose: tuple[str, ...] = ()) -> float:
    """Run a job with a launcher and return its rate."""
    request = LaunchRequest(folder, job, environment={"DOWNPOUR_XLA": "off"}, compose=compose)
    with LAUNCHERS[name].start(request) as started:
        started.wait(LIMIT_S)
        return float(started.summary()["samples_per_s"])


def table(results: Mapping[str, Any]) -> str:
    """Return the report in Markdown."""
    found = results["samples_per_s"]
    names = ["launcher", "samples/s of each run", "median", f"relative to {REFERENCE}"]
    lines = [
        [name, ", ".join(f"{rate:,.0f}" for rate in rates), f"{median(rates):,.0f}",
         f"{median(rates) / median(found[REFERENCE]):.2f}"]
        for name, rates in found.items()
    ]  # fmt: skip
    return f"{report.head(results, 'The same job with each launcher')}\n\n{report.rows(names, lines)}"


def _flags(argv: list[str]) -> argparse.Namespace:
    parser = FlagParser(
        "downpour bench launchers", description="Compare the samples/s of one job started by each launcher."
    )
    parser.add_argument("--epochs", type=int, default=6, help="Number of epochs of each run (default: 6).")
    parser.add_argument("--repeats", type=int, default=3, help="Number of runs of each launcher (default: 3).")
    parser.add_argument("--compose", help='Also measure containers, with this command, such as "docker compose".')
    parser.add_argument("--quick", action="store_true", help="Make one run of two epochs with each launcher.")
    parser.add_argument("--out", type=Path, metavar="DIR", help="Folder for results.json, report.md and report.html.")
    flags = parser.parse_args(argv)
    if flags.quick:
        flags.epochs, flags.repeats = 2, 1
    return flags
