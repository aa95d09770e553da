"""A folder for temporary files outlives none of those who use it, however they end."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from downpour.deploy.launch.scratch import Scratch
from tests.support.cluster import wait_until
from tests.support.paths import ROOT

USER = """
import subprocess, sys
from downpour.deploy.launch.scratch import Scratch
scratch = Scratch()
(scratch.path / "file").write_bytes(bytes(100_000))
child = subprocess.Popen([sys.executable, "-c", "input()"], pass_fds=(scratch.holding,))
print(scratch.path, flush=True)
input()
scratch.close()
"""


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A process that has such a folder, and a child that keeps it; both wait for the end of their input."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", USER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().decode().strip())
        assert folder.parent == tmp_path and (folder / "file").exists()
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children()]
        assert len(family) == 3
        yield process, family, folder
        for each in family:
            if each.is_running():
                each.kill()


def test_the_scratch_folder_is_removed_at_the_end(user) -> None:
    process, family, folder = user
    process.communicate(b"\n\n", timeout=60.0)
    assert process.returncode == 0 and not folder.exists()
    wait_until(lambda: not any(each.is_running() for each in family[1:]), "nothing of it runs")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_scratch_folder_is_removed_after_its_last_user(user, number: signal.Signals) -> None:
    process, (_, *others), folder = user
    sweeper = next(each for each in others if each.name() == "sh")
    (child,) = (each for each in others if each != sweeper)
    sweeper.send_signal(signal.SIGTERM)  # as a service manager would
    process.send_signal(number)
    process.wait(60.0)
    assert (folder / "file").exists() and sweeper.is_running()
    child.send_signal(number)
    wait_until(lambda: not folder.exists() and not sweeper.is_running(), "folder and sweeper are gone")


def test_the_scratch_folder_is_removed_even_if_the_shell_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    scratch = Scratch()
    scratch._shell.kill()
    scratch.close()
    assert list(tmp_path.iterdir()) == []


def test_a_failure_to_create_the_scratch_folder_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError):
        Scratch()
    assert [each for each in psutil.Process().children() if each.name() == "sh"] == []
