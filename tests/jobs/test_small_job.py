"""The launcher with real workers on a small file of data: one is killed, every sample counts once, all end."""

from __future__ import annotations

import json
import os
import re
import signal
import uuid
from pathlib import Path

import grpc
import keras
import numpy as np
import pytest

from downpour.protos import parameter_server_pb2 as pb
from tests.support.cluster import Process, wait_until
from tests.support.processes.launched import alive, status
from tests.support.toys.quadrants import USED, write_quadrants

EPOCHS, BATCH = 8, 4


def test_a_job_with_a_killed_worker_reaches_its_accuracy_and_uses_every_sample_once(tmp_path: Path) -> None:
    data, mark, run = tmp_path / "quadrants.npz", f"mark-{uuid.uuid4()}", tmp_path / "runs" / "latest"
    write_quadrants(data)
    flags = [f"--dataset={data}", "--shards=2", "--workers=3", f"--epochs={EPOCHS}", f"--batch-size={BATCH}"]
    flags += ["--xla=off", "--learning-rate=0.5", f"--runs-dir={run.parent}"]
    launcher = Process(tmp_path / "launcher.log", "-m", "downpour.deploy.cli", "train", *flags, env={"E2E_MARK": mark})
    try:

        def all_train() -> pb.Progress | None:
            assert launcher.child.poll() is None, launcher.errors
            progress = status(run)
            busy = progress is not None and sum(worker.updates > 0 for worker in progress.workers) == 3
            return progress if busy else None

        training = wait_until(all_train, "all workers train")
        check_that_a_token_is_demanded(run)
        os.kill(training.workers[2].pid, signal.SIGKILL)
        output = launcher.child.communicate(timeout=120)[0].decode()
        assert launcher.child.returncode == 0, output + launcher.errors
        assert "worker-2 was killed by SIGKILL; restarted" in output
        wait_until(lambda: not alive(mark), "no process is left")
    finally:
        launcher.kill()
        for pid in alive(mark):
            os.kill(pid, signal.SIGKILL)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "ended" and summary["test_accuracy"] >= 0.9, output
    rates = re.findall(r"samples/s +([\d,]+)", output)
    assert rates[-1] == rates[-2], "the last line of progress and the table agree"
    assert keras.models.load_model(run / "model.keras").input_shape == (None, 6)
    trace = np.load(run / "trace.npy")
    for epoch in range(EPOCHS):
        ranges = np.sort(trace[trace["epoch"] == epoch][["start", "stop"]], order="start")
        assert ranges["start"][0] == 0 and ranges["stop"][-1] == USED
        np.testing.assert_array_equal(ranges["start"][1:], ranges["stop"][:-1])


def check_that_a_token_is_demanded(run: Path) -> None:
    """Check that other users of this machine, who know the addresses of all servers, are refused by each of them."""
    announced = [json.loads(log.read_text().splitlines()[0]) for log in sorted((run / "logs").glob("ps-*.log"))]
    assert len(announced) == 2
    for server in announced:
        with grpc.insecure_channel(server["address"]) as channel:
            call = channel.unary_unary("/downpour.v1.Coordinator/Stop", lambda _: b"", lambda reply: reply)
            with pytest.raises(grpc.RpcError) as refused:
                call(None, timeout=30)
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_a_worker_stops_with_advice_after_repeated_gradients_with_nan(tmp_path: Path) -> None:
    flags = ["--model=regression", "--dataset=plane", "--workers=1", "--xla=off", "--nonfinite-limit=3"]
    flags += ["--learning-rate=1e30", f"--runs-dir={tmp_path}"]
    launcher = Process(tmp_path / "launcher.log", "-m", "downpour.deploy.cli", "train", *flags)
    try:
        output = launcher.child.communicate(timeout=120)[0].decode()
    finally:
        launcher.kill()
    assert launcher.child.returncode == 1
    assert "received 3 in a row with NaN or Inf. The learning rate (1e+30) is too large: try a tenth of it" in output
    assert "restarted" not in output
