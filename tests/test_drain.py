"""Ctrl-C on a job whose model is slow: what was trained is saved, and evaluated as far as there is time."""

from __future__ import annotations

import json
import os
import signal
import uuid
from pathlib import Path

import keras
import pytest

from tests.cluster import Process, wait_until
from tests.launched import alive, status

LIMIT_S = 120.0


@pytest.mark.slow
def test_a_slow_model_is_saved_before_it_is_evaluated(tmp_path: Path) -> None:
    mark = f"mark-{uuid.uuid4()}"
    model = "--model=tests.slow_models:three_convolutions"
    flags = [model, "--workers=2", "--xla=off", "--learning-rate=0.01", f"--runs-dir={tmp_path}"]
    launcher = Process(tmp_path / "launcher.log", "-m", "deploy.cli", "train", *flags, env={"E2E_MARK": mark})
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
    assert summary["test_samples"] < 10_000
    assert output.count("the model is saved and ") == 1 and "there was no time for more" in output
    assert keras.models.load_model(run / "model.keras").count_params() > 100_000
