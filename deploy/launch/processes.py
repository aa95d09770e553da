"""One process of a local cluster: it is never orphaned, it has a log, and it ends by a deadline."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from downpour.deploy.launch import child
from downpour.deploy.launch.environment import child_environment
from downpour.deploy.launch.plan import ProcessSpec
from downpour.protos.logs import OF_TENSORFLOW

POLL_S = 0.02
ON_PURPOSE = (2, 3)  # exit statuses after which a restart is useless: invalid settings, unsupported configuration
ANNOUNCEMENT = '{"event": "listening"'
# A server whose launcher has ended drains and saves the job; a worker has nothing to save.
_WHEN_PARENT_DIES = {"ps": signal.SIGTERM, "worker": signal.SIGKILL, "dashboard": signal.SIGKILL}


class ParentPipe:
    """A pipe whose writing end closes when this process ends, which its children detect (see child.py)."""

    def __init__(self) -> None:
        """Open the pipe, whose ends stay open until `close` is called or this process ends."""
        self.reading, self._writing = os.pipe()

    def close(self) -> None:
        """Close both ends of the pipe."""
        os.close(self.reading)
        os.close(self._writing)


class Process:
    """A process of the plan, running or ended. Its output is written to its log.

    Attributes:
        spec: The process of the plan.
        log: The path of its log.
        no_log: Why its output is discarded; empty if it has a log.
        pid: The id of the process.
    """

    def __init__(
        self, spec: ProcessSpec, addresses: Mapping[str, str], logs: Path, pipe: ParentPipe, kept: Sequence[int] = ()
    ) -> None:
        """Start the process in its own session, so that Ctrl-C reaches only the launcher.

        Call this from the main thread: the kernel ties the child to the thread that starts it.

        Args:
            spec: The process to start.
            addresses: `HOST:PORT` of the running servers, by name.
            logs: The folder of the log files.
            pipe: The pipe by which the child detects the end of this process where the kernel sends no signal.
            kept: The file descriptors that the child inherits.
        """
        self.spec = spec
        self.no_log, self._begin = "", 0
        self.log = logs / f"{spec.name}.log"
        command = [
            *(sys.executable, "-I", "-S", child.__file__),
            *(str(os.getpid()), str(int(_WHEN_PARENT_DIES[spec.role])), str(pipe.reading)),
            *spec.command(sys.executable, addresses),
        ]
        with ExitStack() as stack:
            output = self._open_log(stack)
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=None if spec.shown else output,
                stderr=None if spec.shown else subprocess.STDOUT,
                env=child_environment(os.environ, spec.env, spec.set_by_flags),
                pass_fds=(pipe.reading, *kept),
                start_new_session=True,
            )
        self.pid = self._process.pid

    def _open_log(self, stack: ExitStack) -> IO[bytes] | int:
        """Open the log until the stack unwinds; without one, the process is started all the same."""
        try:
            if self.log.parent.parent.is_dir():
                self.log.parent.mkdir(exist_ok=True)  # a user may have removed the folder
            output = stack.enter_context(self.log.open("ab"))
        except OSError as error:
            self.no_log = str(error.strerror)
            return subprocess.DEVNULL
        self._begin = output.tell()
        return output

    @property
    def code(self) -> int | None:
        """The exit status, negative for a signal; None while the process runs."""
        return self._process.poll()

    def ending(self) -> str:
        """Return how the process ended, as a phrase for a message."""
        code = self.code
        if code is None:
            return "is running"
        if code >= 0:
            return f"exited with status {code}"
        return f"was killed by {signal.Signals(-code).name}"

    def send(self, number: signal.Signals) -> None:
        """Send a signal if the process still runs."""
        self._process.send_signal(number)

    def lines(self) -> list[str]:
        """Return the complete lines that the process has printed since it was started."""
        try:
            with self.log.open("rb") as log:
                log.seek(self._begin)
                return log.read().decode(errors="replace").split("\n")[:-1]
        except OSError:  # the log could not be opened, or a user has removed it
            return []

    def tail(self, count: int = 12) -> list[str]:
        """Return the last lines of output without blank lines, TensorFlow's messages and announcements."""
        others = (line for line in self.lines() if line.strip() and not line.startswith(ANNOUNCEMENT))
        return [line for line in others if not OF_TENSORFLOW.match(line)][-count:]

    def reason(self) -> str:
        """Return the last error message that the process printed, or its last line, or how it ended."""
        lines = self.tail(1000)
        own = [line for line in lines if line.startswith(f"downpour {self.spec.role}: ")]
        return own[-1] if own else lines[-1] if lines else self.ending()

    def announcement(self) -> dict[str, Any] | None:
        """Return the line `{"event": "listening", "address": ...}` of this process, or None before it is printed.

        Lines of other processes are ignored, because another launcher may write to the same log.
        """
        for line in self.lines():
            if line.startswith("{"):
                try:
                    event = json.loads(line)
                except ValueError:
                    continue
                if isinstance(event, dict) and event.get("event") == "listening" and event.get("pid") == self.pid:
                    return event
        return None


def end(processes: Iterable[Process], grace_s: float) -> None:
    """End all processes: send SIGTERM, and SIGKILL to those that still run after `grace_s`."""
    running = [process for process in processes if process.code is None]
    for process in running:
        process.send(signal.SIGTERM)
    if not wait(running, grace_s):
        kill(running)


def kill(processes: Iterable[Process]) -> None:
    """End all processes with SIGKILL."""
    running = [process for process in processes if process.code is None]
    for process in running:
        process.send(signal.SIGKILL)
    wait(running, 5.0)


def wait(processes: Iterable[Process], timeout_s: float) -> bool:
    """Wait for processes to end; return whether all ended within `timeout_s`."""
    waiting, deadline = list(processes), time.monotonic() + timeout_s
    while waiting := [process for process in waiting if process.code is None]:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
