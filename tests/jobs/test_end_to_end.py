"""The launcher on real MNIST: two shards, three workers, one of them killed; all files of the run are checked."""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.ps.config import ServerSettings
from downpour.worker.catalog.datasets import load
from tests.support.cluster import Process, wait_until
from tests.support.processes.launched import alive, status

SHARDS, WORKERS, EPOCHS, LIMIT_S = 2, 3, 2, 240.0
KEYS = """model dataset workers shards mode staleness_policy optimizer learning_rate batch_size epochs seed transport
    codec updates samples samples_per_s wall_s train_loss val_accuracy test_accuracy test_loss dropped duplicates
    bytes_pushed bytes_pulled staleness""".split()
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run a job in which a worker is killed, and return its run directory."""
    folder = tmp_path_factory.mktemp("job")
    mark = f"mark-{uuid.uuid4()}"
    flags = [f"--shards={SHARDS}", f"--workers={WORKERS}", f"--epochs={EPOCHS}", "--xla=off", f"--runs-dir={folder}"]
    launcher = Process(folder / "launcher.log", "-m", "downpour.deploy.cli", "train", *flags, env={"E2E_MARK": mark})
    run = folder / "latest"
    try:

        def training() -> pb.Progress | None:
            assert launcher.child.poll() is None, launcher.errors
            progress = status(run)
            busy = progress is not None and progress.phase == "training" and progress.samples > 0
            return progress if busy and len(progress.workers) == WORKERS else None  # type: ignore[union-attr]

        progress = wait_until(training, "all workers train", LIMIT_S)
        victim = max(progress.workers, key=lambda worker: worker.worker)
        os.kill(victim.pid, signal.SIGKILL)
        output, _ = launcher.child.communicate(timeout=LIMIT_S)
        assert launcher.child.returncode == 0, output.decode() + launcher.errors
        wait_until(lambda: not alive(mark), "no process is left")
        yield run
    finally:
        launcher.kill()
        for pid in alive(mark):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def summary(run: Path) -> dict[str, Any]:
    return json.loads((run / "summary.json").read_text())


def test_the_summary_is_complete_and_the_accuracy_reached(summary: dict[str, Any]) -> None:
    assert [key for key in KEYS if key not in summary] == []
    assert {"mean", "p50", "p99", "max", "per_worker"} <= summary["staleness"].keys()
    assert summary["test_accuracy"] >= 0.92 and summary["val_accuracy"] >= 0.92
    assert (summary["status"], summary["shards"], summary["workers"]) == ("ended", SHARDS, WORKERS)
    assert summary["samples"] == EPOCHS * 57_000 and summary["dropped"] == 0
    assert summary["updates"] >= summary["samples"] // summary["batch_size"]
    assert all(summary[key] > 0 for key in ("samples_per_s", "wall_s", "train_loss", "bytes_pushed", "bytes_pulled"))


def test_the_traces_hold_every_sample_once_and_join_across_shards(run: Path, summary: dict[str, Any]) -> None:
    first, second = np.load(run / "trace.npy"), np.load(run / "trace-shard1.npy")
    used = Counter((int(row["epoch"]), int(row["start"])) for row in first)
    assert set(used.values()) == {1}
    for epoch in range(EPOCHS):
        ranges = np.sort(first[first["epoch"] == epoch][["start", "stop"]], order="start")
        assert ranges["start"][0] == 0 and ranges["stop"][-1] == 57_000
        np.testing.assert_array_equal(ranges["start"][1:], ranges["stop"][:-1])
    assert len(first) == summary["updates"]
    assert set(summary["staleness"]["per_worker"]) == {str(worker) for worker in first["worker"]}
    names = ["worker", "incarnation", "seq"]
    pushes = [{row.item() for row in trace[names]} for trace in (first, second)]
    assert [len(each) for each in pushes] == [len(first), len(second)]
    assert len(pushes[0] ^ pushes[1]) <= 1, "at most the push that the killed worker had under way"
    assert {incarnation for _, incarnation, _ in pushes[0]} >= {1}
    np.testing.assert_array_equal(first["version"] - 1 - first["base_version"], first["staleness"])


def test_the_model_loads_in_plain_keras_and_is_as_accurate(run: Path, summary: dict[str, Any]) -> None:
    data = load("mnist")
    model = keras.models.load_model(run / "model.keras")
    outputs = model.predict(data.x_test.astype(np.float32) * data.scale, batch_size=1000, verbose=0)
    accuracy = float((np.argmax(outputs, 1) == data.y_test).mean())
    assert accuracy == pytest.approx(summary["test_accuracy"], abs=2e-4)


def test_the_configuration_contains_all_that_a_repetition_needs(run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    settings = config["settings"]
    assert set(settings) == set(ServerSettings.model_fields)
    assert (settings["workers"], settings["shards"], settings["epochs"]) == (WORKERS, SHARDS, EPOCHS)
    assert {"python", "numpy", "grpcio"} <= config["versions"].keys()
    assert {"tensorflow", "keras", "xla", "threads"} <= config["worker"].keys()
    assert config["data"]["checksum"] == load("mnist").checksum
