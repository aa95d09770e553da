"""C22: linear loss, integer gradients, η = 2^−k ⇒ w = w₀ − η Σg bitwise: a lost or a doubled update shows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.ps.trace.format import applied
from tests.support.cluster import Cluster, Member, running, vector_layout, wait_until
from tests.support.numpy_worker import integer_gradient
from tests.support.processes.proxy import BreakingProxy

N, WORKERS, PUSHES = 5_001, 6, 40
RATE = 2.0**-3
LAYOUT = vector_layout(N)
INITIAL = np.random.default_rng(1).integers(-9, 9, N).astype(np.float32)


def push_all(member: Member) -> list[tuple[pb.Reply, ...]]:
    """Make all pushes of one worker, one after the other."""
    replies = []
    member.pull()
    for seq in range(1, PUSHES + 1):
        gradient = integer_gradient(member.worker, seq, N)
        replies.append(member.push_pull(gradient).replies)
    return replies


def train(cluster: Cluster, members: list[Member]) -> list[tuple[pb.Reply, ...]]:
    with ThreadPoolExecutor(len(members)) as pool:
        return [replies for each in pool.map(push_all, members) for replies in each]


def expected() -> np.ndarray:
    total = sum(integer_gradient(worker, seq, N) for worker in range(WORKERS) for seq in range(1, PUSHES + 1))
    return INITIAL - np.float32(RATE) * np.asarray(total, np.float32)


@pytest.mark.parametrize(("shards", "transport"), [(1, "grpc"), (1, "auto"), (3, "grpc"), (3, "auto")])
def test_every_push_is_applied_exactly_once(tmp_path: Path, shards: int, transport: str) -> None:
    with running(tmp_path, shards, workers=WORKERS, learning_rate=RATE) as cluster:
        members = cluster.train(LAYOUT, WORKERS, INITIAL, transport=transport)
        replies = train(cluster, members)
        assert {reply.outcome for each in replies for reply in each} == {pb.APPLIED}
        final = members[0].client.pull()
        assert final.versions == (WORKERS * PUSHES,) * shards
        np.testing.assert_array_equal(final.flat, expected())
        cluster.stop()
        for shard in range(shards):
            trace = cluster.trace(shard)
            assert trace["version"].tolist() == list(range(1, WORKERS * PUSHES + 1))
            names = set(zip(trace["worker"], trace["incarnation"], trace["seq"], strict=True))
            assert len(names) == WORKERS * PUSHES


@pytest.mark.parametrize("shards", [1, 2])
def test_retries_through_broken_connections_are_harmless(tmp_path: Path, shards: int) -> None:
    with running(tmp_path, shards, workers=WORKERS, learning_rate=RATE) as cluster:
        proxies: dict[str, BreakingProxy] = {}

        def via(address: str) -> str:
            if address not in proxies:
                # Each connection lasts for one to four replies, and breaks within the next.
                proxies[address] = BreakingProxy(address, lambda number: (1 + number % 4) * 4 * N // shards + 2_000)
            return proxies[address].address

        try:
            members = cluster.train(LAYOUT, WORKERS, INITIAL, via=via)
            replies = train(cluster, members)
            final = members[0].client.pull()
        finally:
            for proxy in proxies.values():
                proxy.close()
        assert all(proxy.cuts > WORKERS for proxy in proxies.values())
        np.testing.assert_array_equal(final.flat, expected())
        assert final.versions == (WORKERS * PUSHES,) * shards
        answered_again = sum(reply.duplicate for each in replies for reply in each)
        assert answered_again > 0
        assert cluster.status().duplicates > 0


@pytest.mark.parametrize("shards", [1, 2])
def test_a_killed_worker_leaves_whole_updates_only(tmp_path: Path, shards: int) -> None:
    with running(tmp_path, shards, workers=WORKERS, learning_rate=RATE, session_s=2) as cluster:
        victim = cluster.start(
            "victim", "-m", "tests.support.numpy_worker", "push", f"--server={cluster.address}", f"--size={N}"
        )
        members = [cluster.join(LAYOUT) for _ in range(WORKERS - 1)]
        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(lambda member: member.await_start(INITIAL), members))
            pushing = [pool.submit(push_all, member) for member in members]
            wait_until(lambda: _pushed_by_pid(cluster, victim.child.pid) >= 3, "the victim has pushed")
            victim.kill()
            for each in pushing:
                each.result()
        wait_until(lambda: len(cluster.status().workers) == WORKERS - 1, "the victim's session has ended")
        final = members[0].client.pull()
        cluster.stop()
        for shard, part in enumerate(LAYOUT.cut(shards)):
            trace = applied(cluster.trace(shard))
            assert len(trace) == final.versions[shard] > (WORKERS - 1) * PUSHES
            total = sum(integer_gradient(int(row["worker"]), int(row["seq"]), N) for row in trace)
            weights = INITIAL - np.float32(RATE) * np.asarray(total, np.float32)
            np.testing.assert_array_equal(final.flat[part.start : part.stop], weights[part.start : part.stop])


def _pushed_by_pid(cluster: Cluster, pid: int) -> int:
    return sum(worker.updates for worker in cluster.status().workers if worker.pid == pid)
