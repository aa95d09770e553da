"""`downpour report` and `downpour dashboard` as commands."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.pure.recorded_trace import write_run


def downpour(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "downpour", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_a_report_is_written_into_the_run_directory_or_elsewhere(tmp_path: Path) -> None:
    write_run(tmp_path / "run", pushes=50)
    done = downpour("report", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "run" / "report.html") in done.stdout
    assert downpour("report", str(tmp_path / "run"), "--to", str(tmp_path / "x.html")).returncode == 0
    assert (tmp_path / "x.html").read_text() == (tmp_path / "run" / "report.html").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "x.html"]


def test_a_path_that_is_not_a_run_is_refused_with_the_reason(tmp_path: Path) -> None:
    for command, argument in {"report": "RUN must be", "dashboard": "SOURCE must be HOST:PORT of"}.items():
        done = downpour(command, str(tmp_path))
        assert done.returncode == 2
        assert f"downpour {command}: {argument}" in done.stderr and "the directory of a run" in done.stderr


def test_a_report_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "run", pushes=50)
    done = downpour("report", str(tmp_path / "run"), "--to", str(tmp_path / "missing" / "x.html"))
    assert done.returncode == 2
    assert "--to must be a file that can be written" in done.stderr


def test_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "run", pushes=50)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for command in (("dashboard", str(tmp_path / "run")), ("playground",)):
            done = downpour(*command, "--port", port)
            assert done.returncode == 2
            expected = f"downpour {command[0]}: --port must be free; received {port}: Address already in use. Choose"
            assert expected in done.stderr


@pytest.mark.parametrize("command", ["dashboard", "top", "status"])
def test_an_address_at_which_no_job_answers_is_refused_at_once(command: str) -> None:
    with socket.socket() as bound:  # it does not listen
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        done = downpour(command, address)
    assert done.returncode == 1 and done.stdout == ""
    first, second = done.stderr.splitlines()
    assert first == f"downpour {command}: no parameter server answers at {address}: the connection was refused"
    assert "must be the address that server 0 of a running job announced" in second
