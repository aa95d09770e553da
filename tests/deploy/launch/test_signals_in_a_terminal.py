"""Every signal that a terminal or a user sends to a launcher in its foreground ends the job, at every moment."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.support.cluster import wait_until
from tests.support.command_line import TIMEOUT_S
from tests.support.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("clean_environment")]

ENDING_S = 60.0  # for all processes to be gone
STOPPED, QUIT = 130, -signal.SIGQUIT
DRAINING, AT_ONCE = "draining: the job saves its progress", "stopped immediately"

# Begins a session whose controlling terminal is the standard input, without core files and signals that are ignored.
SESSION = """
import fcntl, os, resource, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
    signal.signal(number, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""
KEYS = {"^C": b"\x03", "^\\": b"\x1c"}  # for which the terminal sends SIGINT and SIGQUIT to its foreground group
FLAGS = {
    "start": ["--server-silent=1"], "waiting": ["--worker-waits=1"], "training": [],
    "waiting, never drained": ["--worker-waits=1", "--ignores-stop=1"], "never drained": ["--ignores-stop=1"],
}  # fmt: skip

# The moment -> what is sent one after the other, and the exit status.
CASES = {
    "start": [
        ("^C", STOPPED), ("INT", STOPPED), ("TERM", STOPPED), ("TERM group", STOPPED), ("HUP", STOPPED),
        ("close", STOPPED), ("^\\", QUIT), ("INT INT", STOPPED),
    ],
    "waiting": [("^C", 0), ("TERM", 0), ("HUP group", 0), ("close", 0), ("QUIT", QUIT)],
    "waiting, never drained": [("^C ^C", STOPPED)],
    "training": [
        ("^C", 0), ("INT", 0), ("INT group", 0), ("TERM", 0), ("TERM group", 0), ("HUP", 0), ("HUP group", 0),
        ("close", 0), ("^\\", QUIT), ("QUIT group", QUIT),
    ],
    "never drained": [
        ("^C ^C", STOPPED), ("^C ^C ^C", STOPPED), ("TERM ^C", STOPPED), ("INT TERM", STOPPED), ("^C HUP", STOPPED),
        ("TERM close", STOPPED),
    ],
}  # fmt: skip


class TerminalJob:
    """A launcher over a fake cluster in the foreground of a pseudo-terminal, of which it is the session's leader."""

    def __init__(self, folder: Path, moment: str) -> None:
        self.run_dir, self.scratch = folder / "run", folder / "tmp"
        self.scratch.mkdir()
        self._mark = str(folder)
        self._controller, terminal = pty.openpty()
        fake = [sys.executable, "-m", "tests.support.processes.fake_cluster", "launch", str(self.run_dir)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", SESSION, *fake, *FLAGS[moment]], cwd=ROOT, stdin=terminal, stdout=terminal,
            stderr=terminal, start_new_session=True,
            env={**os.environ, "TERM": "xterm", "TMPDIR": str(self.scratch), "TERMINAL_JOB": self._mark},
        )  # fmt: skip
        os.close(terminal)
        self.output = ""
        self._wake, self._waking = os.pipe()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):  # all processes have closed the terminal
            while self._wake not in select.select([self._controller, self._wake], [], [])[0]:
                self.output += os.read(self._controller, 65536).decode(errors="replace")

    def processes(self) -> list[psutil.Process]:
        """Return the processes of the job, however they were started."""
        found = psutil.process_iter(["environ", "status"])
        return [
            each for each in found if (each.info["environ"] or {}).get("TERMINAL_JOB") == self._mark
            and each.info["status"] != psutil.STATUS_ZOMBIE
        ]  # fmt: skip

    def until(self, moment: str) -> None:
        """Wait for a moment of the job."""
        if moment == "start":
            wait_until(lambda: "a line before" in self._log("ps-0"), "the server starts", ENDING_S)
        elif moment.startswith("waiting"):
            wait_until(lambda: all("waits" in self._log(f"worker-{n}") for n in (0, 1)), "workers wait", ENDING_S)
        else:
            wait_until(lambda: "epoch" in self.output, "the progress is shown", ENDING_S)

    def _log(self, name: str) -> str:
        with suppress(OSError):
            return (self.run_dir / "logs" / f"{name}.log").read_text()
        return ""

    def send(self, what: str) -> None:
        """Press a key, send a signal to the launcher or to its process group, or close the terminal."""
        if what in KEYS:
            os.write(self._controller, KEYS[what])
        elif what == "close":
            self._close()
        elif what.endswith("group"):
            os.killpg(self.process.pid, signal.Signals[f"SIG{what.split()[0]}"])
        else:
            self.process.send_signal(signal.Signals[f"SIG{what}"])

    def _close(self) -> None:
        """Close the terminal, which a thread that reads it would keep open."""
        if self._controller < 0:
            return
        os.write(self._waking, b"!")
        self._reader.join(TIMEOUT_S)
        for descriptor in (self._controller, self._wake, self._waking):
            os.close(descriptor)
        self._controller = -1

    def kill(self) -> None:
        """End what is left, and the thread that reads the terminal."""
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()
        self.process.wait(TIMEOUT_S)
        self._close()


@pytest.mark.parametrize(("moment", "sent", "status"), [(m, *case) for m, cases in CASES.items() for case in cases])
def test_a_signal_in_a_terminal_ends_the_job_and_leaves_nothing(
    tmp_path: Path, moment: str, sent: str, status: int
) -> None:
    job = TerminalJob(tmp_path, moment)
    try:
        job.until(moment)
        to_group = sent.endswith("group")
        for count, each in enumerate([sent] if to_group else sent.split()):
            if count and moment != "start":
                shown = DRAINING if count == 1 else AT_ONCE
                wait_until(lambda shown=shown: shown in job.output, shown, ENDING_S)  # type: ignore[misc]
            with suppress(ProcessLookupError, OSError):  # the signal before has ended it already
                job.send(each)
        assert job.process.wait(ENDING_S) == status, job.output
        wait_until(lambda: not job.processes(), "all processes are gone", ENDING_S)
        wait_until(lambda: not list(job.scratch.iterdir()), "no temporary file is left", ENDING_S)
        assert (job.run_dir / "summary.json").exists() == (status == 0)
    finally:
        job.kill()
