"""Ctrl-C on a job whose steps or evaluations are slow: what was trained is saved in time."""

from __future__ import annotations

import json
import os
import signal
import uuid
import zipfile
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, Process, wait_until
from tests.support.processes.launched import alive, status
from tests.support.toys.slow_models import EVALUATED

LIMIT_S = 120.0
PATIENT = "--drain-timeout-s=40"  # to save a model on a busy machine; the default suits one that does nothing else


@pytest.mark.slow
def test_a_slow_model_is_saved_before_it_is_evaluated(tmp_path: Path) -> None:
    mark = f"mark-{uuid.uuid4()}"
    wanted = "--model=tests.support.toys.slow_models:slow_evaluation"
    flags = [wanted, PATIENT, "--workers=2", "--xla=off", "--learning-rate=0.01", f"--runs-dir={tmp_path}"]
    launcher = Process(tmp_path / "launcher.log", "-m", "downpour.deploy.cli", "train", *flags, env={"E2E_MARK": mark})
    run = tmp_path / "latest"
    try:

        def trains() -> bool:
            assert launcher.child.poll() is None, launcher.errors
            progress = status(run)
            return progress is not None and progress.phase == "training" and progress.version > 2

        wait_until(trains, "the job trains", LIMIT_S)
        launcher.child.send_signal(signal.SIGINT)
        output = launcher.child.communicate(timeout=LIMIT_S)[0].decode()
        assert launcher.child.returncode == 0, output + launcher.errors
        wait_until(lambda: not alive(mark), "no process is left")
    finally:
        launcher.kill()
        for pid in alive(mark):
            os.kill(pid, signal.SIGKILL)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "interrupted" and summary["updates"] > 2
    assert summary["test_samples"] < 10_000 and summary["test_samples"] % EVALUATED == 0
    assert output.count("the model is saved and ") == 1 and "there was no time for more" in output
    with zipfile.ZipFile(run / "model.keras") as model:
        assert {"config.json", "model.weights.h5"} <= set(model.namelist())
        assert model.getinfo("model.weights.h5").file_size > 4 * 100_000


def begin_long_steps(folder: Path, workers: int) -> None:
    """Make every further step last ten minutes, and return when all workers are in one."""
    folder.mkdir()
    wait_until(lambda: len(list(folder.iterdir())) >= workers, "all workers are in a long step")


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("--transport=grpc", "--overlap")], ids=["auto", "grpc-overlap"])
def test_a_step_longer_than_the_end_may_take_is_given_up_and_the_model_is_saved(
    tmp_path: Path, flags: tuple[str, ...]
) -> None:
    mark, long = f"mark-{uuid.uuid4()}", tmp_path / "long"
    given = [
        "--model=tests.support.toys.slow_models:one_long_step",
        PATIENT,
        "--workers=2",
        "--xla=off",
        f"--runs-dir={tmp_path / 'runs'}",
    ]
    env = {"E2E_MARK": mark, "LONG_STEP_DIR": str(long)}
    command = ("-m", "downpour.deploy.cli", "train", "--epochs=1000", *given, *flags)
    launcher = Process(tmp_path / "launcher.log", *command, env=env)
    run = tmp_path / "runs" / "latest"
    try:
        wait_until(lambda: (progress := status(run)) and progress.version > 2, "the job trains", LIMIT_S)
        begin_long_steps(long, 2)
        launcher.child.send_signal(signal.SIGINT)
        output = launcher.child.communicate(timeout=LIMIT_S)[0].decode()
        assert launcher.child.returncode == 0, output + launcher.errors
        wait_until(lambda: not alive(mark), "no process is left")
    finally:
        launcher.kill()
        for pid in alive(mark):
            os.kill(pid, signal.SIGKILL)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "interrupted" and summary["updates"] > 2
    assert "the model is saved and not evaluated: there was no time for more" in output
    logs = [(run / "logs" / f"worker-{worker}.log").read_text() for worker in range(2)]
    assert all("this step takes too long for the end of the job: it is abandoned" in log for log in logs), logs
    with zipfile.ZipFile(run / "model.keras") as model:
        assert {"config.json", "model.weights.h5"} <= set(model.namelist())


@pytest.mark.slow
def test_a_worker_in_a_long_step_leaves_when_asked_to(tmp_path: Path) -> None:
    cluster, long = Cluster(tmp_path), tmp_path / "long"
    model = "--model=tests.support.toys.slow_models:one_long_step"
    try:
        cluster.serve(1, workers=1, epochs=1000, model=model.partition("=")[2])
        flags = (f"--server={cluster.address}", model, "--xla=off")
        worker = cluster.start("worker", "-m", "downpour.worker", *flags, env={"LONG_STEP_DIR": str(long)})
        wait_until(lambda: "gradient: plain" in worker.errors, "the worker is warm")
        begin_long_steps(long, 1)
        worker.child.send_signal(signal.SIGTERM)
        assert worker.wait() == 0
        assert worker.errors.splitlines()[-1].endswith("stopped by a signal: left the job in the middle of a step")
        wait_until(lambda: "worker 0 has left" in cluster.servers[0].errors, "the server knows")
    finally:
        cluster.close()
