"""A job of real processes, one of them killed half-way: every position of every epoch is used exactly once."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.support.cluster import DATA, running, wait_until

EPOCHS, SIZE = 3, 64


@pytest.mark.parametrize("shards", [1, 2])
def test_with_a_worker_killed_half_way(tmp_path: Path, shards: int) -> None:
    flags = {"workers": 3, "epochs": EPOCHS, "batch_size": 4, "lease_batches": 5, "session_s": 2}
    with running(tmp_path, shards, **flags) as cluster:
        command = ("-m", "tests.support.numpy_worker", "train", f"--server={cluster.address}", f"--size={SIZE}")
        workers = [cluster.start(f"worker-{number}", *command) for number in range(3)]
        total = EPOCHS * DATA.train_samples
        wait_until(lambda: cluster.status().samples >= total // 3, "a third of the samples is used")
        victim = workers.pop()
        victim.kill()
        assert [worker.wait() for worker in workers] == [0, 0]
        assert [server.wait() for server in cluster.servers] == [0] * shards
        trace = cluster.trace()
        used = Counter((int(row["epoch"]), position) for row in trace for position in range(row["start"], row["stop"]))
        assert used == Counter((epoch, position) for epoch in range(EPOCHS) for position in range(DATA.train_samples))
        summary = json.loads((cluster.run / "summary.json").read_text())
        assert (summary["status"], summary["samples"]) == ("ended", total)
        assert [each["epoch"] for each in summary["history"] if "val_loss" in each] == list(range(1, EPOCHS + 1))
        assert (cluster.run / "model.keras").read_bytes() == b"weights"
        assert any("has sent no heartbeat" in note for note in summary["notes"])
        assert trace["incarnation"].max() == 1 and set(trace["worker"]) == {0, 1, 2}
