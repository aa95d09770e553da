"""Servers die and are restarted: they have the updates up to the last cut, and no others."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import Fenced, UnknownWorker, Unreachable
from downpour.ps.server import FAILED
from downpour.ps.storage.checkpoint_file import load, newest, numbers, path_of
from tests.support.cluster import DATA, Cluster, running, vector_layout, wait_until
from tests.support.numpy_worker import integer_gradient
from tests.support.processes.restarts import CHECKPOINT_S, await_checkpoint, checkpointed, start_again, summary
from tests.support.pure.leasing import push_leased

pytestmark = pytest.mark.slow

N = 1_001
LAYOUT = vector_layout(N)
INITIAL = np.random.default_rng(5).integers(-9, 9, N).astype(np.float32)
SETTINGS: dict[str, Any] = {
    "workers": 1, "optimizer": "adam", "learning_rate": 2.0**-6, "checkpoint_every": "0.05s", "batch_size": 16,
    "epochs": 50, "schedule": "linear:60",
}  # fmt: skip


def kill(cluster: Cluster, shards: Sequence[int]) -> list[str]:
    """Kill servers, and return their addresses."""
    found = []
    addresses = {shard.shard: shard.address for shard in cluster.members[-1].session.shards}
    for shard in shards:
        cluster.servers[shard].kill()
        found.append(addresses[shard])
    return found


@pytest.mark.parametrize("before, after", [(1, 1), (2, 2), (1, 3), (3, 2)])
def test_a_restored_job_continues_bit_by_bit(tmp_path: Path, before: int, after: int) -> None:
    """Weights, slots, step, version and schedule: half the pushes before a kill, half after, on other shards."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "halves").mkdir()
    with running(tmp_path / "whole", before, **SETTINGS) as cluster:
        (member,) = cluster.train(LAYOUT, 1, INITIAL)
        push_leased(member, 40)
        expected = member.pull()
    with running(tmp_path / "halves", before, **SETTINGS) as cluster:
        (member,) = cluster.train(LAYOUT, 1, INITIAL)
        push_leased(member, 20)
        await_checkpoint(cluster, 20)
        kill(cluster, range(before))
        member.close()
        cluster.servers.clear()
        _serve_again(cluster, after)
        again = cluster.join(LAYOUT, worker=0)
        assert again.session.incarnation == 2
        again.await_start(np.full(N, np.nan, np.float32))
        push_leased(again, 20, first_seq=21)
        final = again.pull()
        np.testing.assert_array_equal(final.flat.view(np.uint32), expected.flat.view(np.uint32))
        assert final.versions == (40,) * after
        cluster.stop()
        trace = cluster.trace()
        assert trace["version"].tolist() == list(range(1, 41))
        assert (np.diff(trace["time_s"]) >= 0).all()


def _serve_again(cluster: Cluster, shards: int) -> None:
    common = [f"--shards={shards}", *(f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items())]
    first = cluster.start("again-0", "-m", "downpour.ps", f"--run-dir={cluster.run}", "--resume", *common)
    cluster.servers.append(first)
    cluster.address = str(first.announcement()["address"])
    for shard in range(1, shards):
        flag = f"--coordinator={cluster.address}"
        cluster.servers.append(cluster.start(f"again-{shard}", "-m", "downpour.ps", f"--shard={shard}", flag, *common))
        cluster.servers[-1].announcement()


def test_a_push_for_an_ended_generation_is_never_applied(tmp_path: Path) -> None:
    with running(tmp_path, 1, **SETTINGS) as cluster:
        (member,) = cluster.train(LAYOUT, 1, INITIAL)
        push_leased(member, 5)
        await_checkpoint(cluster, 5)
        (address,) = kill(cluster, [0])
        start_again(cluster, 0, address, **SETTINGS)
        with pytest.raises(UnknownWorker):  # its session ended with the server
            member.push_pull(integer_gradient(0, 6, N))
        again = cluster.join(LAYOUT)
        assert [shard.generation for shard in again.session.shards] == [2]
        again.await_start(INITIAL)
        before = again.pull().flat.copy()
        again.client._generations = [1]
        with pytest.raises(Fenced):
            again.push_pull(integer_gradient(0, 6, N))
        again.client._generations = [2]
        after = again.pull()
        assert after.versions == (5,)
        np.testing.assert_array_equal(after.flat, before)


def test_without_a_checkpoint_the_job_starts_over_as_another_generation(tmp_path: Path) -> None:
    settings = {**SETTINGS, "checkpoint_every": "off"}
    with running(tmp_path, 1, **settings) as cluster:
        (member,) = cluster.train(LAYOUT, 1, INITIAL)
        push_leased(member, 5)
        (address,) = kill(cluster, [0])
        start_again(cluster, 0, address, **settings)
        again = cluster.join(LAYOUT)
        again.await_start(INITIAL)
        pulled = again.pull()
        np.testing.assert_array_equal(pulled.flat, INITIAL)
        assert pulled.versions == (0,) and again.session.shards[0].generation == 2
        assert cluster.status().samples == 0
        cluster.stop()
        assert len(cluster.trace()) == 0


def test_all_shards_return_to_the_last_cut_when_one_dies(tmp_path: Path) -> None:
    """Later updates are lost on all shards, and their samples are leased again."""
    settings = {
        **SETTINGS,
        "checkpoint_every": "8",
        "optimizer": "sgd",
        "learning_rate": 2.0**-3,
        "schedule": "constant",
    }
    with running(tmp_path, 2, **settings) as cluster:
        (member,) = cluster.train(LAYOUT, 1, INITIAL)
        pushed = 0
        while not checkpointed(cluster.run, 8):
            pushed += push_leased(member, 1, first_seq=pushed + 1)
        pushed += push_leased(member, 3, first_seq=pushed + 1)
        (address,) = kill(cluster, [1])
        with pytest.raises(UnknownWorker):
            wait_until(lambda: member.control.heartbeat(member.session.session) is None, "the session has ended")
        start_again(cluster, 1, address, **settings)
        again = cluster.join(LAYOUT)
        again.await_start(INITIAL)
        pulled = again.pull()
        cut, _ = newest(cluster.run / "checkpoints")
        assert cut is not None and 8 <= cut.facts.shards[0].version <= pushed
        version = cut.facts.shards[0].version
        assert pulled.versions == (version, version)
        assert [shard.generation for shard in again.session.shards] == [2, 2]
        total = sum(integer_gradient(0, seq, N) for seq in range(1, version + 1))
        np.testing.assert_array_equal(pulled.flat, INITIAL - np.float32(2.0**-3) * np.asarray(total, np.float32))
        task = again.control.lease(again.session.session)
        assert (task.epoch, task.start) == divmod(version * 16, DATA.train_samples)
        cluster.stop()
        assert [len(cluster.trace(shard)) for shard in range(2)] == [version, version]


@pytest.mark.parametrize("reached", [0, 1])
def test_a_push_that_reached_one_shard_of_two_is_used_up_and_counted(tmp_path: Path, reached: int) -> None:
    """The worker dies between the two pushes: no slice may contain the batch twice."""
    settings = {**SETTINGS, "session_s": 2, "workers": 2, "optimizer": "sgd", "checkpoint_every": "8"}
    with running(tmp_path, 2, **settings) as cluster:
        dying, living = cluster.train(LAYOUT, 2, INITIAL)
        task = dying.control.lease(dying.session.session)
        dying.pull()
        batch = {"samples": 16, "lease": task.lease, "epoch": task.epoch}
        info = dying.push_info(loss=1.0, start=task.start, stop=task.start + 16, **batch)
        dying.client._seq += 1
        request = dying.client._header(reached, info, pull=True)
        part = LAYOUT.cut(2)[reached]
        link = dying.client._links[reached]
        link.send(request, np.ones(part.size, np.float32).data.cast("B"))
        link.receive()
        dying.close()
        wait_until(lambda: len(cluster.status().workers) == 1, "the dead worker's session has ended")
        assert living.pull().versions == ((1, 0) if reached == 0 else (0, 1))
        wait_until(lambda: cluster.status().samples == 16, "its batch counts as used")
        starts = set()
        while (lease := living.control.lease(living.session.session)).kind == pb.TRAIN and lease.epoch == 0:
            starts |= set(range(lease.start, lease.stop))
            for start in range(lease.start, lease.stop, 16):
                batch = {"samples": 16, "lease": lease.lease, "epoch": lease.epoch}
                living.push_pull(np.zeros(N, np.float32), loss=1.0, start=start, stop=start + 16, **batch)
        assert starts == set(range(DATA.train_samples)) - set(range(task.start, task.start + 16))
        cluster.stop()
        assert summary(cluster)["partial_pushes"] == 1


def test_a_worker_that_hangs_loses_its_lease(tmp_path: Path) -> None:
    """Its heartbeats continue; steps take milliseconds, so a step longer than six sessions is overdue."""
    with running(tmp_path, 1, **{**SETTINGS, "workers": 2, "session_s": 3}) as cluster:
        hung, living = cluster.train(LAYOUT, 2, INITIAL)
        lease = hung.control.lease(hung.session.session)
        assert lease.kind == pb.TRAIN

        def expelled() -> bool:
            push_leased(living, 1)
            return hung.membership.lost is not None

        wait_until(expelled, "the worker that does nothing has lost its session")
        assert isinstance(hung.membership.lost, UnknownWorker)
        assert any("sends heartbeats but has made no progress" in note for note in cluster.status().notes)
        push_leased(living, 1)
        cluster.stop()
        (mine,) = cluster.trace()[(cluster.trace()["epoch"] == 0) & (cluster.trace()["start"] == lease.start)]
        assert mine["worker"] == living.worker


def test_a_shard_waits_for_its_coordinator_and_then_gives_up(tmp_path: Path) -> None:
    with running(tmp_path, 2, reconnect_s=2, **SETTINGS) as cluster:
        wait_until(lambda: cluster.status().shards_joined == 2, "the shard has joined")
        cluster.servers[0].kill()
        assert cluster.servers[1].wait() != 0
        assert f"{cluster.address} within 2 s" in cluster.servers[1].errors


def test_a_job_fails_when_a_shard_does_not_come_back(tmp_path: Path) -> None:
    with running(tmp_path, 2, reconnect_s=2, **SETTINGS) as cluster:
        cluster.train(LAYOUT, 1, INITIAL)
        cluster.servers[1].kill()
        assert cluster.servers[0].wait() == FAILED
        assert "shards [1] did not reconnect within 2 s" in cluster.servers[0].errors


def test_a_job_without_workers_ends_with_a_message(tmp_path: Path) -> None:
    with running(tmp_path, 1, idle_timeout_s=1, **SETTINGS) as cluster:
        assert cluster.servers[0].wait() == FAILED
        assert "no worker for 1 s" in cluster.servers[0].errors


def test_a_disk_that_takes_no_checkpoint_is_reported_and_training_continues(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").write_text("in the way of the folder")
    with running(tmp_path, 1, **SETTINGS) as cluster:
        (member,) = cluster.train(LAYOUT, 1, INITIAL)
        wait_until(lambda: any("no checkpoint" in note for note in cluster.status().notes), "it is reported")
        push_leased(member, 10)
        assert member.pull().versions == (10,)


def test_an_earlier_run_is_not_overwritten(tmp_path: Path) -> None:
    with running(tmp_path, 1, **SETTINGS) as cluster:
        cluster.train(LAYOUT, 1, INITIAL)
        await_checkpoint(cluster, 0)
        cluster.servers[0].kill()
        second = cluster.start("second", "-m", "downpour.ps", f"--run-dir={cluster.run}")
        assert second.wait() == FAILED
        assert "--resume" in second.errors


def test_two_servers_never_share_a_run_directory(tmp_path: Path) -> None:
    with running(tmp_path, 1, **SETTINGS) as cluster:
        cluster.train(LAYOUT, 1, INITIAL)
        second = cluster.start("second", "-m", "downpour.ps", f"--run-dir={cluster.run}", "--resume")
        assert second.wait() == FAILED
        assert "another running server" in second.errors
        assert cluster.status().phase == "training"


@pytest.mark.parametrize("change", ["optimizer=sgd", "seed=7", "batch_size=8"])
def test_a_job_does_not_resume_from_a_checkpoint_of_other_settings(tmp_path: Path, change: str) -> None:
    name, _, value = change.partition("=")
    with running(tmp_path, 1, **SETTINGS) as cluster:
        cluster.train(LAYOUT, 1, INITIAL)
        await_checkpoint(cluster, 0)
        (address,) = kill(cluster, [0])
        server = start_again(cluster, 0, address, **{**SETTINGS, name: value})
        assert server.wait() == FAILED
        assert f"cannot resume: {name} must be the run's" in server.errors


def test_cuts_are_taken_while_many_push_and_nothing_waits_for_them(tmp_path: Path) -> None:
    """Each checkpoint of three shards is one cut: all at one version, and the ledger with them."""
    settings = {**SETTINGS, "optimizer": "sgd", "checkpoint_every": "0.05s", "workers": 3, "checkpoint_keep": 1000}
    with running(tmp_path, 3, **settings) as cluster:
        members = cluster.train(LAYOUT, 3, INITIAL)
        begin, pushed = time.monotonic(), [0, 0, 0]
        while not (len(list((cluster.run / "checkpoints").glob("*.safetensors"))) > 4 and checkpointed(cluster.run, 9)):
            assert time.monotonic() < begin + CHECKPOINT_S, "five checkpoints"
            for number, member in enumerate(members):
                pushed[number] += push_leased(member, 1, first_seq=pushed[number] + 1)
        folder = cluster.run / "checkpoints"
        for number in numbers(folder):
            facts = load(path_of(folder, number)).facts
            versions = {shard.version for shard in facts.shards}
            assert len(versions) == 1 and facts.partial_pushes == 0
            free = sum(stop - start for _, start, stop in facts.ledger.unused)
            used = facts.ledger.epoch * DATA.train_samples + facts.ledger.position - free
            assert used == 16 * versions.pop()


def test_an_unreachable_coordinator_is_reported_with_its_address(tmp_path: Path) -> None:
    with running(tmp_path, 1, **SETTINGS) as cluster:
        (member,) = cluster.train(LAYOUT, 1, INITIAL)
        cluster.servers[0].kill()
        member.control._timeout_s = 0.5
        with pytest.raises(Unreachable, match=cluster.address):
            member.control.heartbeat(member.session.session)


def test_a_worker_that_dies_while_it_initialises_leaves_nothing_of_its_weights(tmp_path: Path) -> None:
    """It has sent weights to one of two shards; the next worker sends others, and no mixture is trained."""
    with running(tmp_path, 2, **{**SETTINGS, "session_s": 2}) as cluster:
        dying = cluster.join(LAYOUT)
        assert dying.control.ready(dying.session.session, False, warm=True).initialise
        part = LAYOUT.cut(2)[1]
        link = dying.client._links[1]
        link.send(pb.Request(kind=pb.INIT), np.full(part.size, 77, np.float32).data.cast("B"))
        link.receive()
        dying.close()
        living = cluster.join(LAYOUT)
        living.await_start(INITIAL)
        np.testing.assert_array_equal(living.pull().flat, INITIAL)
