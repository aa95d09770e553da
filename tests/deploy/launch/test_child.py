"""A child process ends with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from tests.support.command_line import TIMEOUT_S
from tests.support.paths import ROOT


def test_without_parent_death_signals_a_pipe_ties_a_child_to_its_parent() -> None:
    reading, writing = os.pipe()
    tie = f"from downpour.deploy.launch import child; child.tie_by_pipe({reading}, 9)"
    code = f"{tie}; import signal; print(1, flush=True); signal.pause()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, pass_fds=(reading,), cwd=ROOT, stdout=subprocess.PIPE) as tied:
        os.close(reading)
        assert tied.stdout is not None
        assert tied.stdout.readline() == b"1\n"
        assert tied.poll() is None
        os.close(writing)
        assert tied.wait(TIMEOUT_S) == -signal.SIGKILL


def test_a_child_whose_parent_has_ended_does_not_start() -> None:
    reading, writing = os.pipe()
    command = [
        sys.executable,
        "-I",
        "-S",
        str(ROOT / "deploy" / "launch" / "child.py"),
        "1",
        "9",
        str(reading),
        "/bin/true",
    ]
    done = subprocess.run(command, pass_fds=(reading,), timeout=TIMEOUT_S)
    os.close(reading)
    os.close(writing)
    assert done.returncode == (1 if sys.platform == "linux" else 0)
