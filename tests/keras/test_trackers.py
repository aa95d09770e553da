"""Each tracker has one run of a job, with the workers and the staleness: TensorBoard, Weights & Biases and MLflow."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.scripts import environment

pytestmark = [pytest.mark.trackers, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the trackers after the example has run with two workers."""
    folder = tmp_path_factory.mktemp("trackers")
    line = [sys.executable, "-m", "downpour.deploy.cli", "run", "--workers=2", str(ROOT / "examples" / "trackers.py")]
    done = subprocess.run(line, env=environment(), cwd=folder, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert done.stdout.strip().splitlines()[-1].startswith("workers 2, staleness ")
    yield folder / "tracked"


def test_tensorboard_has_one_run(tracked: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (file,) = (tracked / "tensorboard" / "train").glob("events.*.v2")
    tags = EventAccumulator(str(file.parent)).Reload().Tags()["tensors"]
    assert {"epoch_loss", "epoch_workers", "epoch_staleness"} <= set(tags)


def test_wandb_has_one_run(tracked: Path) -> None:
    runs = [path for path in (tracked / "wandb").iterdir() if path.name.startswith("offline-run-")]
    assert len(runs) == 1
    (log,) = runs[0].glob("*.wandb")
    data = log.read_bytes()
    assert all(name in data for name in (b"epoch/loss", b"epoch/workers", b"epoch/staleness"))


def test_mlflow_has_one_run(tracked: Path) -> None:
    with sqlite3.connect(tracked / "mlflow.db") as database:
        runs = database.execute("select run_uuid, status from runs").fetchall()
        assert [status for _, status in runs] == ["FINISHED"]
        rows = database.execute("select key, step, value from metrics").fetchall()
    logged = {(key, step): value for key, step, value in rows}
    assert logged["workers", 4] == 2 and logged["staleness", 4] > 0 and logged["loss", 0] > logged["loss", 4]
    assert os.listdir(tracked.parent / "runs")  # nothing is asked of a server
