"""A disk that is full, read-only or damaged stops no training, and its files are used or refused."""

from __future__ import annotations

import resource
import select
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from downpour.ps.storage.checkpoint_file import newest, numbers, path_of
from tests.support.cluster import Cluster, running, vector_layout, wait_until
from tests.support.processes.restarts import await_checkpoint, start_again
from tests.support.pure.leasing import push_leased

pytestmark = pytest.mark.slow

N = 10_001
LAYOUT = vector_layout(N)
INITIAL = np.zeros(N, np.float32)
SETTINGS: dict[str, Any] = {"workers": 1, "checkpoint_every": "0.05s", "batch_size": 16, "epochs": 50}


def limit_files(cluster: Cluster, most_bytes: int) -> None:
    """Limit the size of every file of the first server, in bytes, as a full disk does."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.prlimit(cluster.servers[0].child.pid, resource.RLIMIT_FSIZE, (most_bytes, hard))


def noted(cluster: Cluster, words: str) -> bool:
    return any(words in note for note in cluster.status().notes)


def test_a_full_disk_is_reported_and_the_trace_completed_when_space_returns(tmp_path: Path) -> None:
    with running(tmp_path, 1, **SETTINGS) as cluster:
        (member,) = cluster.train(LAYOUT, 1, INITIAL)
        push_leased(member, 5)
        await_checkpoint(cluster, 5)
        limit_files(cluster, 1500)  # no room for a checkpoint, nor for ten more records of the trace
        push_leased(member, 10, first_seq=6)
        wait_until(lambda: noted(cluster, "no checkpoint could be written"), "the full disk is reported")
        found, refused = newest(cluster.run / "checkpoints")
        assert found is not None and found.facts.shards[0].version <= 15 and refused == []
        push_leased(member, 10, first_seq=16)
        assert member.client.pull().versions == (25,)
        assert sum("no checkpoint could be written" in note for note in cluster.status().notes) == 1
        limit_files(cluster, resource.RLIM_INFINITY)
        await_checkpoint(cluster, 25)
        assert noted(cluster, "checkpoints can be written again")
        cluster.stop()
        assert cluster.trace()["version"].tolist() == list(range(1, 26))
        assert not list(cluster.run.rglob("*.part"))


@pytest.mark.parametrize("returns", [True, False])
def test_a_server_that_starts_on_a_full_disk_waits_for_room(tmp_path: Path, returns: bool) -> None:
    with running(tmp_path, 1, **SETTINGS) as cluster:
        (member,) = cluster.train(LAYOUT, 1, INITIAL)
        push_leased(member, 5)
        await_checkpoint(cluster, 5)
        address = str(member.session.shards[0].address)
        cluster.servers[0].kill()
        reconnect_s = 60 if returns else 1
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]
        full = ["sh", "-c", 'ulimit -S -f 0; exec "$@"', "sh"]
        own = (f"--run-dir={cluster.run}", f"--bind={address}", "--resume", f"--reconnect-s={reconnect_s}", *flags)
        server = cluster.start("again", "-m", "downpour.ps", *own, before=full)
        cluster.servers[0] = server
        if not returns:
            assert server.wait() == 3
            return
        assert server.child.stdout is not None
        assert not select.select([server.child.stdout], [], [], 1.0)[0] and server.child.poll() is None
        limit_files(cluster, resource.RLIM_INFINITY)
        server.announcement()
        again = cluster.join(LAYOUT)
        again.await_start(INITIAL)
        assert again.client.pull().versions == (5,)


def test_a_job_on_a_full_disk_ends_with_a_message(tmp_path: Path) -> None:
    """The final weights cannot be written, so that the exit status is not 0."""
    with running(tmp_path, 1, **{**SETTINGS, "epochs": 1, "transport": "grpc"}) as cluster:
        wait_until(lambda: (cluster.run / "config.json").exists(), "the run has begun")
        limit_files(cluster, 0)
        worker = cluster.start(
            "worker", "-m", "tests.support.numpy_worker", "train", f"--server={cluster.address}", f"--size={N}"
        )
        assert cluster.servers[0].wait() == 3
        assert worker.wait() != 0
        assert "the trained model cannot be written" in worker.errors


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs mounts of its own, in a namespace")
def test_a_disk_that_turns_read_only_is_reported_and_training_continues(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]
    try:
        server = cluster.start(
            "ps-0", "-m", "downpour.ps", f"--run-dir={cluster.run}", *flags, before=["unshare", "-rm"]
        )
        cluster.servers, cluster.address = [server], str(server.announcement()["address"])
        (member,) = cluster.train(LAYOUT, 1, INITIAL)
        push_leased(member, 5)
        inside = ["nsenter", f"--target={server.child.pid}", "--user", "--preserve-credentials", "--mount"]
        subprocess.run([*inside, "mount", "--bind", str(cluster.run), str(cluster.run)], check=True)
        read_only = [
            *inside,
            "mount",
            "-o",
            "remount,bind,ro",
            str(cluster.run),
        ]  # busy while a file is open for writing
        wait_until(lambda: subprocess.run(read_only).returncode == 0, "the run directory is read-only")
        push_leased(member, 5, first_seq=6)
        wait_until(lambda: noted(cluster, "no checkpoint could be written"), "the read-only disk is reported")
        push_leased(member, 5, first_seq=11)
        assert member.client.pull().versions == (15,)
    finally:
        cluster.close()


@pytest.mark.parametrize("damage", ["torn", "foreign", "empty"])
def test_a_restarted_server_refuses_a_bad_checkpoint_and_uses_the_previous_one(tmp_path: Path, damage: str) -> None:
    with running(tmp_path, 1, **SETTINGS) as cluster:
        (member,) = cluster.train(LAYOUT, 1, INITIAL)
        push_leased(member, 5)
        await_checkpoint(cluster, 5)
        address = str(member.session.shards[0].address)
        cluster.servers[0].kill()
        folder = cluster.run / "checkpoints"
        last = numbers(folder)[0]
        good, bad = path_of(folder, last), path_of(folder, last + 1)
        whole = good.read_bytes()
        bad.write_bytes({"torn": whole[: len(whole) // 2], "foreign": b"GIF89a" + whole, "empty": b""}[damage])
        start_again(cluster, 0, address, **SETTINGS)
        again = cluster.join(LAYOUT)
        again.await_start(INITIAL)
        assert again.client.pull().versions == (5,)
        assert noted(cluster, f"checkpoint refused, the one before is used: {bad.name}")
        assert noted(cluster, f"resumed from checkpoint {last}")
