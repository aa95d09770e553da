"""Registry of the launchers: every way to start the processes of a job, one row each.

The command line, `downpour bench launchers` and the test of the launchers' contract read this table, so a new launcher
is one row here. Importing it loads neither NumPy nor gRPC.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from downpour.deploy.compose_project import SUMMARY, Project
from downpour.deploy.launch.environment import child_environment

ANNOUNCE_S = 60.0
POLL_S = 0.05


@dataclass(frozen=True)
class LaunchRequest:
    """A job that a launcher is asked to start.

    Attributes:
        folder: The folder of the logs and of the run directory; must exist and be empty.
        flags: The settings of the job, as flags of `downpour train`.
        workers: The number of workers.
        environment: The variables for all processes, which take precedence over the inherited ones.
        compose: The command of docker compose.
    """

    folder: Path
    flags: tuple[str, ...]
    workers: int = 2
    environment: Mapping[str, str] = field(default_factory=dict)
    compose: tuple[str, ...] = ("docker", "compose")


@dataclass(frozen=True)
class StartedJob:
    """A job that a launcher has started.

    Attributes:
        processes: The processes that end with the job, by name.
        address: A function that returns `HOST:PORT` of the coordinator; raises LookupError until it is known.
        summary: A function that returns the content of `summary.json` once the job has ended.
        run_dir: The run directory; None if it is inside a container.
    """

    processes: Mapping[str, subprocess.Popen[Any]]
    address: Callable[[], str]
    summary: Callable[[], dict[str, Any]]
    run_dir: Path | None = None

    def wait(self, timeout_s: float) -> None:
        """Wait until all processes have ended.

        Raises:
            RuntimeError: A process exited with a status other than 0.
            subprocess.TimeoutExpired: A process did not end within `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        for name, process in self.processes.items():
            code = process.wait(max(0.0, deadline - time.monotonic()))
            if code:
                raise RuntimeError(f"{name} must exit with status 0. Received: {code}.")


@dataclass(frozen=True)
class LauncherEntry:
    """A row of the registry.

    Attributes:
        description: A phrase that describes the launcher in `downpour --help` and reports.
        start: A function that starts a job; the context manager ends all processes that still run.
        command: A function that runs `downpour NAME` and returns the exit status; None if it is not a command.
        restarts_workers: Whether a worker that dies is started again.
        in_containers: Whether it needs a container engine and the project's images.
    """

    description: str
    start: Callable[[LaunchRequest], AbstractContextManager[StartedJob]]
    command: Callable[[list[str]], int] | None = None
    restarts_workers: bool = False
    in_containers: bool = False


# ---------------------------------------------------------------------------------------------------- downpour train


def train_command(argv: list[str]) -> int:
    """Run `downpour train` and return its exit status."""
    from downpour.deploy.config import TrainSettings
    from downpour.protos.settings import parse

    about = "Train a model on a local cluster: servers hold the weights, workers compute gradients."
    settings = parse(TrainSettings, argv, "downpour train", about)
    from downpour.deploy.launch.train import train

    return train(settings)


@contextmanager
def start_local(request: LaunchRequest) -> Iterator[StartedJob]:
    """Start a job with `downpour train`."""
    runs = request.folder / "runs"
    with ExitStack() as stack:
        flags = [f"--workers={request.workers}", f"--runs-dir={runs}", *request.flags]
        launcher = start_command(stack, request, "launcher", ["train", *flags])
        latest = runs / "latest"

        def address() -> str:
            for log in runs.glob("*/logs/ps-0.log"):
                return announced_address(log)
            raise LookupError(f"no run has begun in {runs}")

        yield StartedJob({"launcher": launcher}, address, lambda: read_summary(latest), latest)


# ------------------------------------------------------------------------------------- downpour ps, downpour worker


@contextmanager
def start_separately(request: LaunchRequest) -> Iterator[StartedJob]:
    """Start each process with a command of its own: `downpour ps`, and `downpour worker` once per worker."""
    run_dir = request.folder / "run"
    with ExitStack() as stack:
        flags = [f"--workers={request.workers}", f"--run-dir={run_dir}", *request.flags]
        server = start_command(stack, request, "ps", ["ps", *flags])
        address = await_address(server, request.folder / "ps.log")
        workers = {
            name: start_command(stack, request, name, ["worker", f"--server={address}"])
            for name in (f"worker-{number}" for number in range(request.workers))
        }
        yield StartedJob({**workers, "ps": server}, lambda: address, lambda: read_summary(run_dir), run_dir)


@contextmanager
def start_with_tf_config(request: LaunchRequest, evaluator: bool = False) -> Iterator[StartedJob]:
    """Start `downpour ps` and `downpour worker`, which read their place in the cluster from `TF_CONFIG`.

    Args:
        request: The job.
        evaluator: Whether to add a worker that only evaluates.
    """
    run_dir = request.folder / "run"
    others = [f"127.0.0.1:{number}" for number in range(1, request.workers + 1)]
    cluster = {"ps": ["127.0.0.1:0"], "chief": others[:1], "worker": others[1:]}

    def start(name: str, command: Sequence[str], kind: str, index: int) -> subprocess.Popen[bytes]:
        config = {"cluster": cluster, "task": {"type": kind, "index": index}, "environment": "cloud"}
        return start_command(stack, request, name, command, {"TF_CONFIG": json.dumps(config)})

    with ExitStack() as stack:
        server = start("ps", ["ps", f"--run-dir={run_dir}", *request.flags], "ps", 0)
        address = await_address(server, request.folder / "ps.log")
        cluster["ps"] = [address]
        tasks = [("chief", 0), *(("worker", index) for index in range(request.workers - 1))]
        tasks += [("evaluator", 0)] if evaluator else []
        workers = {f"{kind}-{index}": start(f"{kind}-{index}", ["worker"], kind, index) for kind, index in tasks}
        yield StartedJob({**workers, "ps": server}, lambda: address, lambda: read_summary(run_dir), run_dir)


# --------------------------------------------------------------------------------------------------- docker compose


@contextmanager
def start_compose(request: LaunchRequest) -> Iterator[StartedJob]:
    """Start a job with `docker compose up`, from images that exist."""
    settings = dict(flag.removeprefix("--").replace("-", "_").split("=", 1) for flag in request.flags)
    project = Project(
        request.compose,
        {**os.environ, **request.environment},
        ["docker-compose.yml"],
        **{**settings, "workers": request.workers},
    )

    def unknown() -> str:
        raise LookupError("the coordinator of a job in containers cannot be reached from outside them")

    try:
        with project.up() as process:
            yield StartedJob({"compose": process}, unknown, lambda: dict(json.loads(project.in_volume(SUMMARY))))
    finally:
        project.down()


LAUNCHERS: dict[str, LauncherEntry] = {
    "train": LauncherEntry("train a model on a local cluster", start_local, train_command, restarts_workers=True),
    "separate": LauncherEntry("one command per process: downpour ps and downpour worker", start_separately),
    "TF_CONFIG": LauncherEntry("one command per process, with its place from TF_CONFIG", start_with_tf_config),
    "compose": LauncherEntry(
        "docker compose with the project's images", start_compose, restarts_workers=True, in_containers=True
    ),
}


# ------------------------------------------------------------------------------------------------ what rows share


def start_command(
    stack: ExitStack, request: LaunchRequest, name: str, command: Sequence[str], own: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start `downpour COMMAND` with its output in `NAME.log`; it is killed when the stack unwinds.

    Args:
        stack: The exit stack that ends the process.
        request: The job that the process belongs to.
        name: The name of the log.
        command: The command and its flags.
        own: The variables of this process alone.
    """
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("DOWNPOUR_", "TF_CONFIG"))}
    with (request.folder / f"{name}.log").open("wb") as log:
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-P", "-m", "downpour.deploy.cli", *command],
                env=child_environment(inherited, {**request.environment, **(own or {})}, ()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        )
    stack.callback(process.kill)  # runs before the context manager of Popen, which waits for the process
    return process


def announced_address(log: Path) -> str:
    """Return the address `HOST:PORT` that a server has written to its log.

    Raises:
        LookupError: It has not written one yet.
    """
    try:
        line = next(line for line in log.read_text().splitlines(keepends=True) if line.startswith("{"))
    except (OSError, StopIteration):
        raise LookupError(f"no server has announced its address in {log} yet") from None
    if not line.endswith("\n"):
        raise LookupError(f"{log} ends within the announcement")
    return str(json.loads(line)["address"])


def await_address(server: subprocess.Popen[bytes], log: Path) -> str:
    """Wait until a server has announced its address, and return it.

    Raises:
        RuntimeError: The server ended, or did not announce its address in time.
    """
    deadline = time.monotonic() + ANNOUNCE_S
    while True:
        try:
            return announced_address(log)
        except LookupError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"a server must announce its address within {ANNOUNCE_S:.0f} s:\n{tail}") from error
        time.sleep(POLL_S)


def read_summary(run_dir: Path) -> dict[str, Any]:
    """Return the content of `summary.json` of a run that has ended."""
    summary: dict[str, Any] = json.loads((run_dir / "summary.json").read_text())
    return summary
