"""A job that has ended remains ended: no death of a process after that erases its result."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import DEADLINE_S, Process, running, vector_layout, wait_until
from tests.support.processes.launched import alive

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    wait_until(lambda: not alive(str(tmp_path)), "no process is left")


def launch(folder: Path, *flags: str) -> Process:
    own = ("--model=perceptron", "--workers=1", "--xla=off", f"--runs-dir={folder / 'runs'}")
    return Process(
        folder / "launcher.log", "-m", "downpour.deploy.cli", "train", *own, *flags, env={"MARK": str(folder)}
    )


def summary(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "runs" / "latest" / "summary.json").read_text())
    except (OSError, ValueError):
        return {}
    return found


def server_of(folder: Path) -> int:
    line = next(
        line
        for line in (folder / "runs" / "latest" / "logs" / "ps-0.log").read_text().splitlines()
        if line.startswith("{")
    )
    return int(json.loads(line)["pid"])


def joined(folder: Path) -> int:
    """Return how often a worker has joined the job."""
    log = folder / "runs" / "latest" / "logs" / "worker-0.log"
    return log.read_text().count("joined job") if log.exists() else 0


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("shards", [1, 2])
def test_a_server_that_is_killed_after_the_summary_leaves_the_job_ended(folder: Path, shards: int) -> None:
    launcher = launch(folder, f"--shards={shards}", "--epochs=2")
    try:
        wait_until(lambda: summary(folder).get("status") == "ended", "the job has ended", 120.0)
        os.kill(server_of(folder), signal.SIGKILL)
        assert launcher.wait() == 0, launcher.errors
    finally:
        launcher.kill()
    found = summary(folder)
    assert (found["status"], found["epochs_done"]) == ("ended", 2) and found["updates"] > 0


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_workers_that_were_all_asked_to_leave_are_replaced_and_the_job_ends(folder: Path) -> None:
    launcher = launch(folder, "--epochs=60", "--model=sigmoid100", "--dataset=mnist", "--no-tensorboard")
    try:
        wait_until(lambda: joined(folder) == 1, "it trains", 120.0)
        for pid in alive(str(folder)):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"downpour.worker" in command:
                os.kill(pid, signal.SIGTERM)
        wait_until(lambda: joined(folder) == 2, "a worker is started again", 120.0)
        launcher.child.send_signal(signal.SIGINT)
        assert launcher.wait() == 0, launcher.errors
    finally:
        launcher.kill()
    assert summary(folder)["status"] == "interrupted"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_signal_to_all_processes_at_once_saves_the_model(folder: Path) -> None:
    """As systemd sends it to all processes of a service."""
    launcher = launch(folder, "--epochs=60", "--model=sigmoid100", "--dataset=mnist", "--no-tensorboard")
    try:
        wait_until(lambda: joined(folder) == 1, "a worker has joined", 120.0)
        wait_until(lambda: trained(folder), "it trains", 120.0)
        for pid in alive(str(folder)):
            os.kill(pid, signal.SIGTERM)
        assert launcher.wait() == 0, launcher.errors
    finally:
        launcher.kill()
    assert summary(folder)["status"] == "interrupted" and (folder / "runs" / "latest" / "model.keras").is_file()


def trained(folder: Path) -> bool:
    """Return whether the trace has records."""
    trace = folder / "runs" / "latest" / "trace.npy"
    return trace.exists() and trace.stat().st_size > 10_000


def test_a_run_directory_that_is_removed_is_noted(folder: Path) -> None:
    with running(folder, 1) as cluster:
        cluster.train(vector_layout(4), 1)
        shutil.rmtree(cluster.run)
        removed = "the run directory was removed"
        wait_until(lambda: any(removed in note for note in cluster.status().notes), "a note says so")
        assert cluster.status().phase == "training"


def ended_run(folder: Path, **content: Any) -> Path:
    run = folder / "run"
    run.mkdir()
    (run / "summary.json").write_text(json.dumps({"status": "ended", "test_accuracy": 0.9112, "epochs": 10, **content}))
    return run


def test_a_server_is_not_resumed_for_a_run_that_has_ended(folder: Path) -> None:
    run = ended_run(folder)
    before = {path: path.read_bytes() for path in run.iterdir()}
    server = Process(folder / "ps.log", "-m", "downpour.ps", f"--run-dir={run}", "--resume", env={"MARK": str(folder)})
    try:
        assert server.wait() == 0
        assert "has ended" in server.errors and len(server.errors.splitlines()) == 1
    finally:
        server.kill()
    assert {path: path.read_bytes() for path in run.iterdir()} == before


def test_a_server_is_resumed_for_more_epochs_than_a_run_has(folder: Path) -> None:
    ended_run(folder, epochs=3)
    with running(folder, 1, resume=True, epochs=5) as cluster:
        cluster.train(vector_layout(4), 1)
        assert cluster.status().phase == "training"


def test_a_job_that_fails_before_an_update_keeps_the_summary_of_a_good_one(folder: Path) -> None:
    run = ended_run(folder, status="interrupted")
    with running(folder, 1, resume=True, idle_timeout_s=0.5) as cluster:
        cluster.train(vector_layout(4), 1)
        cluster.members[0].membership.leave()
        assert cluster.servers[0].wait(DEADLINE_S) == 3
    assert json.loads((run / "summary.json").read_text())["test_accuracy"] == 0.9112
