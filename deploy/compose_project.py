"""The containers that `make compose-test` starts, inspects and kills. Needs only the standard library."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DEPLOY = Path(__file__).resolve().parent
CALL_S, START_S, JOB_S = 120.0, 180.0, 900.0
ACCURACY = 0.95
KILL = """
import os
for pid in filter(str.isdigit, os.listdir("/proc")):
    with open(f"/proc/{pid}/stat") as file:
        parent = file.read().rpartition(")")[2].split()[1]
    if parent == "1":  # process 1 is the init, which ends with its child
        os.kill(int(pid), 9)
"""
SUMMARY = """
import json, pathlib
run = pathlib.Path("/runs/latest").resolve()
size = (run / "model.keras").stat().st_size
print(json.dumps({"run": run.name, "model_bytes": size, **json.loads((run / "summary.json").read_text())}))
"""


class CheckFailed(Exception):
    """A condition of the test does not hold; the message states the condition."""


def print_line(text: str) -> None:
    """Print one line of the test's output."""
    print(f"compose-test: {text}", flush=True)


def check(holds: bool, condition: str) -> None:
    """Print a condition that holds.

    Raises:
        CheckFailed: The condition does not hold.
    """
    if not holds:
        raise CheckFailed(condition)
    print_line(f"ok: {condition}")


def call(command: Sequence[str], environ: Mapping[str, str], timeout_s: float = CALL_S) -> str:
    """Run a command and return its standard output.

    Raises:
        CheckFailed: The command failed.
    """
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=timeout_s)
    if done.returncode:
        raise CheckFailed(f"{shlex.join(command)} must succeed; status {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


def until(what: str, holds: Callable[[], Any], timeout_s: float) -> Any:
    """Wait until `holds` returns a true value and return that value.

    Raises:
        CheckFailed: It did not within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while not (value := holds()):
        if time.monotonic() > deadline:
            raise CheckFailed(f"{what} within {timeout_s:.0f} s")
        threading.Event().wait(0.5)
    print_line(f"ok: {what}")
    return value


class Project:
    """The services of one or more compose files, under a unique project name."""

    def __init__(self, compose: Sequence[str], environ: Mapping[str, str], files: Sequence[str], **settings: object):
        """Build a project of which nothing is started yet.

        Args:
            compose: The command, `docker compose` or `docker-compose`.
            environ: The environment of all commands.
            files: The names of compose files in this folder, the base file first.
            settings: `DOWNPOUR_*` variables, by their names in lower case without the prefix.
        """
        name = f"downpour-test-{os.getpid()}"
        # Compilation would delay a worker by seconds, and the job must last longer than the start of several workers.
        own = {"DOWNPOUR_XLA": "off", **{f"DOWNPOUR_{key.upper()}": str(value) for key, value in settings.items()}}
        self.environ = {**environ, **own, "COMPOSE_PROJECT_NAME": name}
        self.command = [*compose, *(f"--file={DEPLOY / file}" for file in files)]
        self.volume = f"{name}_runs"
        self._transport = "grpc" if settings.get("transport") == "grpc" else "shm"
        self._up: subprocess.Popen[str] | None = None
        self._status = ""

    def compose(self, *args: str, timeout_s: float = CALL_S) -> str:
        """Run a command of compose and return its output."""
        return call([*self.command, *args], self.environ, timeout_s)

    def docker(self, *args: str) -> str:
        """Run a command of docker and return its output."""
        return call(["docker", *args], self.environ)

    @contextmanager
    def up(self, *args: str) -> Iterator[subprocess.Popen[str]]:
        """Run `up` in the foreground; its log is printed if the block fails."""
        with tempfile.TemporaryFile("w+") as log:
            command = [*self.command, "up", "--no-build", *args]
            process = subprocess.Popen(command, env=self.environ, stdout=log, stderr=subprocess.STDOUT, text=True)
            self._up = process
            try:
                yield process
            except BaseException:
                log.seek(0)
                print(log.read()[-20_000:], file=sys.stderr)
                raise
            finally:
                self._up = None
                if process.poll() is None:
                    process.terminate()
                    process.wait(60)

    def until(self, what: str, holds: Callable[[], Any]) -> Any:
        """Wait for a condition that must hold while the job runs.

        Raises:
            CheckFailed: It did not hold within `START_S`, or before `up` ended.
        """

        def met() -> Any:
            ended = self._up is not None and self._up.poll() is not None
            if not (value := holds()) and ended:
                raise CheckFailed(f"{what} before the job ends. It has ended; increase the number of epochs")
            return value

        return until(what, met, START_S)

    def containers(self, service: str) -> list[str]:
        """Return the ids of all containers of a service, including those that have ended."""
        label = f"label=com.docker.compose.project={self.environ['COMPOSE_PROJECT_NAME']}"
        service = f"label=com.docker.compose.service={service}"
        return self.docker("ps", "--all", "--quiet", "--filter", label, "--filter", service).split()

    def state(self, container: str) -> dict[str, Any]:
        """Return the engine's description of a container."""
        state: dict[str, Any]
        (state,) = json.loads(self.docker("inspect", container))
        return state

    def progress(self) -> dict[str, Any]:
        """Return the response of the status endpoint, or an empty dict if there is none."""
        try:
            self._status = self._status or self.compose("port", "status", "8080").strip()
            import urllib.request  # with HTTP and TLS, a third of the time in which a command starts

            with urllib.request.urlopen(f"http://{self._status}/", timeout=5) as reply:
                progress: dict[str, Any] = json.load(reply)
                return progress
        except (CheckFailed, OSError, ValueError):
            self._status = ""  # its address may change when it is restarted
            return {}

    def in_volume(self, code: str) -> str:
        """Run Python code in a container with the volume of the runs and return its output."""
        volume = f"--volume={self.volume}:/runs"
        return self.docker("run", "--rm", volume, "--entrypoint=python", "downpour-ps", "-c", code)

    def crash(self, service: str) -> str:
        """Kill (-9) the process in the first container of a service and return the container's id."""
        container = self.containers(service)[0]
        before = self.state(container)["RestartCount"]
        self.docker("exec", container, "python", "-c", KILL)
        self.until(
            f"{service} is restarted after kill -9",
            lambda: (state := self.state(container))["RestartCount"] > before and state["State"]["Running"],
        )
        return container

    def trains(self, samples: int = 0) -> Callable[[], dict[str, Any] | None]:
        """Return the condition that the job trains and has used more than `samples` samples."""

        def holds() -> dict[str, Any] | None:
            progress = self.progress()
            return progress if progress.get("phase") == "training" and progress["samples"] > samples else None

        return holds

    def end(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        """Wait for `up` to end by itself, check the result, and return the summary of the run."""
        until("up ends by itself", lambda: process.poll() is not None, JOB_S)
        check(process.returncode == 0, f"up ends with exit code 0 (received {process.returncode})")
        codes = {
            (state := self.state(container))["Name"]: state["State"]["ExitCode"]
            for service in ("certs", "ps", "ps-1", "worker", "status")
            for container in self.containers(service)
        }
        check(set(codes.values()) == {0}, f"every container ended with exit code 0: {codes}")
        summary: dict[str, Any] = json.loads(self.in_volume(SUMMARY))
        check(summary["status"] == "ended", f"the status in summary.json is ended ({summary['status']})")
        check(summary["model_bytes"] > 0, f"model.keras is in the volume ({summary['model_bytes']} bytes)")
        transports = summary["transports"]
        check(transports == [self._transport], f"all payloads used {self._transport} ({transports})")
        accuracy, rate = summary["test_accuracy"], summary["samples_per_s"]
        check(accuracy >= ACCURACY, f"test accuracy {accuracy:.4f} is at least {ACCURACY} ({rate:,.0f} samples/s)")
        return summary

    def down(self) -> None:
        """Remove the containers, networks and volumes."""
        self.compose("down", "--volumes", "--remove-orphans", timeout_s=JOB_S)
