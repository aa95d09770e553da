"""A launcher whose output cannot be written: the job ends as if nobody had looked."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import TIMEOUT_S
from tests.support.paths import ROOT

pytestmark = pytest.mark.usefixtures("clean_environment")


def command(run_dir: Path, *flags: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "tests.support.processes.fake_cluster",
        "launch",
        str(run_dir),
        "--leases=300",
        *flags,
    ]


def ends_well(process: subprocess.Popen[Any], run_dir: Path) -> None:
    try:
        assert process.wait(TIMEOUT_S) == 0
    finally:
        process.kill()
        process.wait(TIMEOUT_S)
    assert (run_dir / "summary.json").is_file()


@pytest.mark.parametrize("flags", [(), ("--verbose",)])
@pytest.mark.parametrize(
    "streams", ["1>/dev/full", "1>/dev/full 2>/dev/full", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"]
)
def test_output_that_cannot_be_written_does_not_end_the_job(
    tmp_path: Path, streams: str, flags: tuple[str, ...]
) -> None:
    run_dir = tmp_path / "run"
    line = ["sh", "-c", f'exec "$@" {streams}', "sh", *command(run_dir, *flags)]
    ends_well(subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), run_dir)


def test_a_reader_that_closes_its_pipe_does_not_end_the_job(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = subprocess.Popen(
        command(run_dir, "--verbose"), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    ends_well(process, run_dir)


def test_a_terminal_that_disappears_without_a_signal_does_not_end_the_job(tmp_path: Path) -> None:
    """Its processes are in another session, which receives no SIGHUP; writing fails with EIO."""
    run_dir = tmp_path / "run"
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        command(run_dir), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal, start_new_session=True,
        env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    os.close(terminal)
    assert os.read(controller, 1)
    os.close(controller)
    ends_well(process, run_dir)


def test_the_command_opens_streams_that_are_closed() -> None:
    line = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", sys.executable, "-m", "downpour.deploy.cli", "train", "--nonsense"]
    assert subprocess.run(line, cwd=ROOT, timeout=TIMEOUT_S, check=False).returncode == 2
