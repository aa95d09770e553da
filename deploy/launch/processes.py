"""One process of a local cluster: started so that it is never orphaned, with its log, ended by a deadline."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from downpour.deploy.launch import child
from downpour.deploy.launch.environment import child_environment
from downpour.deploy.launch.plan import SAID_BY_FLAGS, ProcessSpec
from downpour.protos.logs import OF_TENSORFLOW

POLL_S = 0.02
ON_PURPOSE = (2, 3)  # exit statuses of one that would stop again: bad settings, a deliberate stop
ANNOUNCEMENT = '{"event": "listening"'
# A server whose launcher is gone drains and writes what it has; a worker has nothing to save.
_WHEN_PARENT_DIES = {"ps": signal.SIGTERM, "worker": signal.SIGKILL}


class LifeLine:
    """The pipe whose other end closes when this process ends; children hold the reading end (child.py)."""

    def __init__(self) -> None:
        """Opens the pipe."""
        self.reading, self._writing = os.pipe()

    def close(self) -> None:
        """Closes both ends."""
        os.close(self.reading)
        os.close(self._writing)


class Process:
    """A process of the plan, running or ended. Everything it prints goes to its log."""

    def __init__(
        self, spec: ProcessSpec, addresses: Mapping[str, str], logs: Path, line: LifeLine, kept: Sequence[int] = ()
    ) -> None:
        """Starts the process, in a session of its own so that a Ctrl-C reaches the launcher alone.

        Call it from the main thread: the kernel ties the child to the thread that starts it.

        Args:
            spec: what to start.
            addresses: `HOST:PORT` of the servers that are up, by name.
            logs: folder of the log files.
            line: ties the child to this process where the kernel cannot.
            kept: descriptors that the child has as long as it lives.
        """
        self.spec = spec
        self.log = logs / f"{spec.name}.log"
        command = [
            *(sys.executable, "-I", "-S", child.__file__),
            *(str(os.getpid()), str(int(_WHEN_PARENT_DIES[spec.role])), str(line.reading)),
            *spec.command(sys.executable, addresses),
        ]
        with self.log.open("ab") as output:
            self._begin = output.tell()
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=None if spec.shown else output,
                stderr=None if spec.shown else subprocess.STDOUT,
                env=child_environment(os.environ, spec.env, SAID_BY_FLAGS),
                pass_fds=(line.reading, *kept),
                start_new_session=True,
            )
        self.pid = self._process.pid

    @property
    def code(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def ending(self) -> str:
        """How it ended, in words."""
        code = self.code
        if code is None:
            return "is running"
        if code >= 0:
            return f"exited with status {code}"
        return f"was killed by {signal.Signals(-code).name}"

    def send(self, number: signal.Signals) -> None:
        """Sends a signal, if it still runs."""
        self._process.send_signal(number)

    def lines(self) -> list[str]:
        """What it has printed so far, in this life; a last line without its end is left out."""
        with self.log.open("rb") as log:
            log.seek(self._begin)
            return log.read().decode(errors="replace").split("\n")[:-1]

    def tail(self, count: int = 12) -> list[str]:
        """The last lines that it has printed for a person: none that is blank, TensorFlow's own, or an announcement."""
        others = (line for line in self.lines() if line.strip() and not line.startswith(ANNOUNCEMENT))
        return [line for line in others if not OF_TENSORFLOW.match(line)][-count:]

    def reason(self) -> str:
        """Why it ended, as it said itself in its last line of that kind; else its last line; else how it ended."""
        said = self.tail(1000)
        own = [line for line in said if line.startswith(f"downpour {self.spec.role}: ")]
        return own[-1] if own else said[-1] if said else self.ending()

    def announcement(self) -> dict[str, Any] | None:
        """The line `{"event": "listening", "address": ...}` of a server, once it has printed it."""
        for line in self.lines():
            if line.startswith("{"):
                try:
                    event = json.loads(line)
                except ValueError:
                    continue
                if isinstance(event, dict) and event.get("event") == "listening":
                    return event
        return None


def end(processes: Iterable[Process], grace_s: float) -> None:
    """Returns when all have ended: SIGTERM to each that runs, and SIGKILL after `grace_s`."""
    running = [process for process in processes if process.code is None]
    for process in running:
        process.send(signal.SIGTERM)
    if not wait(running, grace_s):
        kill(running)


def kill(processes: Iterable[Process]) -> None:
    """Ends all at once."""
    running = [process for process in processes if process.code is None]
    for process in running:
        process.send(signal.SIGKILL)
    wait(running, 5.0)


def wait(processes: Iterable[Process], timeout_s: float) -> bool:
    """Whether all ended within `timeout_s`."""
    waiting, deadline = list(processes), time.monotonic() + timeout_s
    while waiting := [process for process in waiting if process.code is None]:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
