"""A job that a launcher of the registry is asked to start, the job it has started, and what the launchers share.

Importing it loads neither NumPy nor gRPC.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
        restarts_servers: Whether a server that dies is started again, from its last checkpoint.
        engine: The name of an engine that must run; empty if the launcher needs none.
    """

    description: str
    start: Callable[[LaunchRequest], AbstractContextManager[StartedJob]]
    command: Callable[[list[str]], int] | None = None
    restarts_workers: bool = False
    in_containers: bool = False
    restarts_servers: bool = False
    engine: str = ""


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
