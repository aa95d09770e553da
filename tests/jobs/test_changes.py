"""Changes of a running job in real processes: all shards make them after the same pushes, and no worker stops."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from downpour.bench.replay.shard_replay import names_of
from downpour.deploy.dashboard.config import Refused
from downpour.deploy.dashboard.controls import Controls
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import DownpourError
from downpour.ps.trace.call_log import Call
from tests.support.cluster import Cluster, Member, running, vector_layout, wait_until

N = 6
MANY = pb.DatasetInfo(name="tiny", checksum="c" * 64, train_samples=64_000_000, test_samples=8)  # no epoch ends


def operate(cluster: Cluster, **request: Any) -> str:
    return asyncio.run(Controls(cluster.address).act(request))


def work(member: Member, stop: Event) -> int:
    """Push for samples of leases until `stop`; return the number of pushes."""
    pushes = 0
    try:
        while not stop.is_set():
            task = member.control.lease(member.session.session)
            if task.kind != pb.TRAIN:
                continue
            member.pull()
            for start in range(task.start, task.stop, member.job.batch_size):
                if stop.is_set():
                    return pushes
                fields = {"lease": task.lease, "epoch": task.epoch, "start": start}
                fields["stop"] = min(start + member.job.batch_size, task.stop)
                member.push_pull(np.ones(N, np.float32), samples=fields["stop"] - start, loss=1.0, **fields)
                pushes += 1
    except DownpourError:
        assert stop.is_set()
    return pushes


@contextmanager
def training(cluster: Cluster, workers: int = 2) -> Iterator[None]:
    """Let members push until the end of the block; a member that leaves releases the others."""
    stop, members = Event(), cluster.train(vector_layout(N), workers, data=MANY)
    with ThreadPoolExecutor(workers) as pool:
        done = [pool.submit(work, member, stop) for member in members]
        try:
            yield
        finally:
            stop.set()
            cluster.stop()
        assert all(each.result() for each in done)


def advances(cluster: Cluster) -> None:
    """Wait until every worker has pushed more than once since now."""
    before = {worker.worker: worker.updates + worker.dropped for worker in cluster.status().workers}
    wait_until(
        lambda: all(each.updates + each.dropped > before[each.worker] + 5 for each in cluster.status().workers),
        "all workers continue",
    )


@pytest.mark.parametrize("shards", [1, 2])
def test_the_mode_changes_on_all_shards_after_the_same_pushes(tmp_path: Path, shards: int) -> None:
    with running(tmp_path, shards, workers=2, epochs=1000, lease_batches=4, mode="async") as cluster:
        with training(cluster):
            for mode in ("bsp", "ssp:0", "async", "kasync:2", "bsp", "async"):
                assert f"mode {mode} (was" in operate(cluster, action="set", mode=mode)
                assert cluster.status().mode == mode
                advances(cluster)
            assert operate(cluster, action="set", mode="async") == "the settings have these values already"
            assert "learning rate 0.5 (was 0.1)" in operate(cluster, action="set", lr="0.5")
        calls = [np.load(path) for path in sorted(cluster.run.glob("calls*.npy"))]
        before = []
        for each in calls:
            at = np.flatnonzero(each["call"] == Call.CHANGE)
            assert each["seq"][at].tolist() == list(range(1, 8))
            before.append([set(names_of(each[:end][each[:end]["call"] == Call.PUSH])) for end in at])
        assert all(sets == before[0] for sets in before)
        changes = json.loads((cluster.run / "changes.json").read_text())["changes"]
        versions = [change["version"] for change in changes]
        assert versions == sorted(versions) and versions[-1] <= cluster.trace()["version"].max()
        assert json.loads((cluster.run / "config.json").read_text())["settings"]["mode"] == "async"
        assert [change["number"] for change in json.loads((cluster.run / "summary.json").read_text())["changes"]] == [
            1, 2, 3, 4, 5, 6, 7,
        ]  # fmt: skip


def test_a_checkpoint_is_taken_on_request_and_refusals_name_the_reason(tmp_path: Path) -> None:
    with running(tmp_path, workers=1, epochs=1000, lease_batches=4, checkpoint_every="off") as cluster:
        with pytest.raises(Refused, match="while the job trains; this one is waiting"):
            operate(cluster, action="checkpoint")
        with pytest.raises(Refused, match="can change while it trains"):
            operate(cluster, action="set", mode="bsp")
        with training(cluster, 1):
            advances(cluster)
            assert "checkpoint 1 has version" in operate(cluster, action="checkpoint")
            assert any("checkpoint 1 was requested" in note for note in cluster.status().notes)
            advances(cluster)
            assert "checkpoint 2 has version" in operate(cluster, action="checkpoint")
            assert len(list((cluster.run / "checkpoints").iterdir())) == 2
            for request, reason in (
                ({"mode": "localsgd:4"}, "push a difference"),
                ({"mode": "kasync:2"}, "waits for 2 workers"),
                ({"lr": "fast"}, "lr must be a number above 0"),
                ({"compensation": 7}, "compensation must be a text"),
                ({}, "set must give mode=VALUE"),
            ):
                with pytest.raises(Refused, match=reason):
                    operate(cluster, action="set", **request)
            with pytest.raises(Refused, match="no launcher watches this job"):
                operate(cluster, action="add-worker")


def test_a_server_that_is_started_again_continues_with_the_changes(tmp_path: Path) -> None:
    with running(tmp_path, workers=1, epochs=1000, lease_batches=4) as cluster:
        stop, (member,) = Event(), cluster.train(vector_layout(N), 1, data=MANY)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(work, member, stop)
            advances(cluster)
            operate(cluster, action="set", lr=0.25, compensation="inverse")
            operate(cluster, action="checkpoint")
            stop.set()
        cluster.servers[0].kill()
        again = cluster.start(
            "again", "-m", "downpour.ps", f"--run-dir={cluster.run}", "--workers=1", "--epochs=1000", "--resume"
        )
        cluster.address = str(again.announcement()["address"])
        cluster.servers[0] = again
        status = cluster.status()
        assert (status.learning_rate, status.staleness_policy) == (0.25, "inverse")
        cluster.stop()
