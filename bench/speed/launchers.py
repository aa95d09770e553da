"""The same job, started by each launcher in turn: samples/s beside `downpour train` on the same cores.

Two workers and one server train the reference model on MNIST; rates are those of `summary.json`, so that starting and
compiling are left out. Containers share no memory, so the local launcher also runs with gRPC alone, which tells the
launcher's share from the transport's. With --compose, the images must be there and DOCKER_HOST must say whose engine:
`make compose-test ARGS="--engine DIR --only tls"` leaves both (DOCKER_HOST=unix://DIR/docker.sock).
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from downpour.bench import report
from downpour.bench.machine import load
from downpour.deploy.compose_project import SUMMARY, Project

WORKERS = 2
LIMIT_S = 600.0
FIRST = "local"
Launch = Callable[[Path], dict[str, Any]]


def main(argv: list[str]) -> int:
    """Measures, prints the table, and writes the report where asked."""
    flags = _flags(argv)
    results = report.begun("launchers", argv)
    launchers = launchers_of(flags)
    found: dict[str, list[float]] = {name: [] for name in launchers}
    for repeat in range(flags.repeats):
        for name, launch in launchers.items():
            with tempfile.TemporaryDirectory() as folder:
                found[name].append(launch(Path(folder))["samples_per_s"])
            print(f"{repeat + 1} of {flags.repeats}: {name}: {found[name][-1]:,.0f} samples/s", file=sys.stderr)
    results["samples_per_s"], results["load_at_end"] = found, load()
    text = table(results)
    print(text)
    if flags.out:
        report.write(flags.out, results, text, {}, __doc__ or "")
    return 0


def launchers_of(flags: argparse.Namespace) -> dict[str, Launch]:
    """What starts the job, by name; `FIRST` is what the others are compared with."""
    job = [f"--epochs={flags.epochs}", "--learning-rate=0.5"]
    grpc = [*job, "--transport=grpc"]
    found: dict[str, Launch] = {
        FIRST: lambda folder: local(folder, job),
        "by hand": lambda folder: by_hand(folder, job),
        "TF_CONFIG": lambda folder: tf_config(folder, job),
        "local, gRPC alone": lambda folder: local(folder, grpc),
        "by hand, gRPC alone": lambda folder: by_hand(folder, grpc),
    }
    if flags.compose:
        found["docker compose"] = lambda folder: compose(shlex.split(flags.compose), flags.epochs)
    return found


def local(folder: Path, job: Sequence[str]) -> dict[str, Any]:
    """`downpour train`."""
    with ExitStack() as stack:
        _end([_start(stack, ["train", f"--workers={WORKERS}", f"--runs-dir={folder}", *job])])
    return _summary(folder / "latest")


def by_hand(folder: Path, job: Sequence[str]) -> dict[str, Any]:
    """`downpour ps`, and `downpour worker` twice."""
    with ExitStack() as stack:
        server = _start(stack, ["ps", f"--workers={WORKERS}", f"--run-dir={folder}", *job])
        worker = ["worker", f"--server={_address(server)}"]
        _end([*(_start(stack, worker) for _ in range(WORKERS)), server])
    return _summary(folder)


def tf_config(folder: Path, job: Sequence[str]) -> dict[str, Any]:
    """The same commands, which find their places in the variable."""
    cluster = {"ps": ["127.0.0.1:0"], "chief": ["127.0.0.1:1"], "worker": ["127.0.0.1:2"]}

    def config(kind: str) -> dict[str, str]:
        return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": 0}})}

    with ExitStack() as stack:
        server = _start(stack, ["ps", f"--run-dir={folder}", *job], config("ps"))
        cluster["ps"] = [_address(server)]
        _end([*(_start(stack, ["worker"], config(kind)) for kind in ("chief", "worker")), server])
    return _summary(folder)


def compose(command: Sequence[str], epochs: int) -> dict[str, Any]:
    """`docker compose up` of images that were built before."""
    project = Project(command, os.environ, ["docker-compose.yml"], epochs=epochs, learning_rate=0.5, workers=WORKERS)
    try:
        with project.up() as process:
            _end([process])
        summary: dict[str, Any] = json.loads(project.in_volume(SUMMARY))
    finally:
        project.down()
    return summary


def table(results: Mapping[str, Any]) -> str:
    """The report in Markdown."""
    found = results["samples_per_s"]
    names = ["launcher", "samples/s, each run", "median", f"relative to {FIRST}"]
    lines = [
        [name, ", ".join(f"{rate:,.0f}" for rate in rates), f"{median(rates):,.0f}",
         f"{median(rates) / median(found[FIRST]):.2f}"]
        for name, rates in found.items()
    ]  # fmt: skip
    return f"{report.head(results, 'The same job, started by each launcher')}\n\n{report.rows(names, lines)}"


def _start(stack: ExitStack, command: Sequence[str], own: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DOWNPOUR_")}
    process = stack.enter_context(
        subprocess.Popen(
            [sys.executable, "-m", "downpour.deploy.cli", *command],
            env={**clean, "DOWNPOUR_XLA": "off", **(own or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    )
    stack.callback(process.kill)  # before the wait of the context above
    return process


def _address(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    return str(json.loads(server.stdout.readline())["address"])


def _end(processes: Sequence[subprocess.Popen[str]]) -> None:
    for process in processes:
        process.communicate(timeout=LIMIT_S)
        if process.returncode:
            raise RuntimeError(f"{process.args!r} must end with status 0; received {process.returncode}")


def _summary(run: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return summary


def _flags(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("downpour bench launchers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=6, help="of each run")
    parser.add_argument("--repeats", type=int, default=3, help="turns of all launchers")
    parser.add_argument("--compose", help='"docker compose" or "docker-compose" (default: without containers)')
    parser.add_argument("--quick", action="store_true", help="one turn of two epochs")
    parser.add_argument("--out", type=Path, help="folder for results.json and report.md")
    flags = parser.parse_args(argv)
    if flags.quick:
        flags.epochs, flags.repeats = 2, 1
    return flags
