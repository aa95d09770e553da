"""Shared memory is chosen where it works, and does what gRPC does."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from downpour.protos.errors import DeadlineExceeded, FutureVersion, Unreachable
from downpour.protos.shared_memory import memfd
from downpour.protos.transports import TRANSPORTS
from downpour.ps.core.consistency import consistency_of
from downpour.ps.core.optimizer import Optimizer
from downpour.ps.core.push import Outcome, Push
from downpour.ps.core.rules.hyperparameters import Hyperparameters
from downpour.ps.core.shard import Shard
from downpour.worker.exchange.client import Client
from downpour.worker.exchange.push_info import PushInfo
from tests.support.cluster import Cluster, running, wait_until
from tests.support.processes.shared_memory import LAYOUT, ONES, N, doorbell, transport_of

pytestmark = pytest.mark.skipif(not memfd.available(), reason="this system has no memfd: auto is gRPC there")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running(tmp_path, workers=1, learning_rate=1) as cluster:
        yield cluster


@pytest.mark.parametrize(("wanted", "chosen"), [("auto", "shm"), *zip(TRANSPORTS, TRANSPORTS, strict=True)])
def test_the_transport_chosen_on_one_host(cluster: Cluster, wanted: str, chosen: str) -> None:
    (member,) = cluster.train(LAYOUT, 1, transport=wanted)
    assert member.client.transports == [chosen]
    np.testing.assert_array_equal(member.push_pull(ONES).flat, -ONES)


def test_a_doorbell_without_a_server_means_the_next_transport_or_a_refusal(cluster: Cluster) -> None:
    (member,) = cluster.train(LAYOUT, 1)
    member.session.shards[0].doorbell = "downpour-of-another-host"
    for chosen in ("tcp", "grpc"):
        client = Client(member.session, LAYOUT, "float32", 30.0, "auto")
        assert client.transports == [chosen]
        client.close()
        member.session.shards[0].tcp = ""
    with pytest.raises(Unreachable, match="on this host, under the same user.*Use --transport auto"):
        Client(member.session, LAYOUT, "float32", 30.0, "shm")


def test_a_server_without_shared_memory_has_no_doorbell(tmp_path: Path) -> None:
    with running(tmp_path, workers=1, transport="grpc") as cluster:
        (member,) = cluster.train(LAYOUT, 1, transport="auto")
        assert not doorbell(member)
        assert member.client.transports == ["grpc"]


def test_all_transports_give_the_same_weights_and_the_same_trace(tmp_path: Path) -> None:
    found = []
    for transport in TRANSPORTS:
        (tmp_path / transport).mkdir()
        rng = np.random.default_rng(0)
        with running(tmp_path / transport, 2, workers=1, optimizer="adam") as cluster:
            (member,) = cluster.train(LAYOUT, 1, transport=transport)
            assert member.client.transports == [transport] * 2
            for step in range(5):
                gradient = rng.standard_normal(N, np.float32)
                pulled = member.push_pull(gradient, np.inf if step == 2 else 1.0, samples=3, loss=step)
            flat = pulled.flat.copy()
            cluster.stop()
            trace = cluster.trace()
        names = [name for name in trace.dtype.names or () if not name.startswith("time")]
        found.append((flat, [trace[name].tolist() for name in names]))
    for weights, records in found[1:]:
        np.testing.assert_array_equal(weights, found[0][0])
        assert records == found[0][1]


def test_a_request_is_repeated_after_a_lost_connection_and_applied_once(cluster: Cluster) -> None:
    (member,) = cluster.train(LAYOUT, 1, transport="shm")
    member.client.push(ONES, member.push_info())
    transport_of(member)._hang_up()
    pulled = member.client.pulled()
    np.testing.assert_array_equal(pulled.flat, -ONES)
    assert member.push_pull(ONES).versions == (2,)


def test_a_worker_whose_replies_come_soon_spins(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    (member,) = cluster.train(LAYOUT, 1, transport="shm")
    looks: list[None] = []
    monkeypatch.setattr("downpour.worker.exchange.spin_wait.os.sched_yield", lambda: looks.append(None))

    def polls() -> bool:
        member.push_pull(ONES)
        return bool(looks)

    wait_until(polls, "a reply that takes longer than the first look is awaited by polling")


def test_weights_that_a_worker_reads_do_not_change_under_the_pushes_of_others(tmp_path: Path) -> None:
    with running(tmp_path, workers=2, learning_rate=1) as cluster:
        reader, writer = cluster.train(LAYOUT, 2, transport="shm")
        held = reader.pull().flat
        for _ in range(10):
            writer.push_pull(ONES)
        np.testing.assert_array_equal(held, 0)
        np.testing.assert_array_equal(reader.pull().flat, -10)


def test_with_overlap_the_weights_before_the_last_are_kept_too(tmp_path: Path) -> None:
    with running(tmp_path, workers=2, learning_rate=1) as cluster:
        reader, writer = cluster.train(LAYOUT, 2, transport="shm")
        overlapping = Client(reader.session, LAYOUT, "float32", 30.0, "shm", overlap=True)
        held = overlapping.pull().flat
        overlapping.push(ONES, reader.push_info())
        for _ in range(10):
            writer.push_pull(ONES)
        np.testing.assert_array_equal(held, 0)
        np.testing.assert_array_equal(overlapping.pulled().flat[:1] <= 0, True)
        np.testing.assert_array_equal(held, 0)
        overlapping.close()


def test_a_shard_copies_what_it_buffers_if_it_may_not_keep_it() -> None:
    shard = Shard(
        np.zeros(4, np.float32), Optimizer("sgd", Hyperparameters(learning_rate=1), 4), consistency_of("softsync:2")
    )
    shard.join(0, 1)
    shared = np.ones(4, np.float32)
    first = shard.push(Push(worker=0, incarnation=1, seq=1, base_version=0), shared, owned=False)
    assert first.outcome == Outcome.BUFFERED
    shared[:] = 3
    shard.push(Push(worker=0, incarnation=1, seq=2, base_version=0), shared, owned=False)
    np.testing.assert_array_equal(shard.pull()[0].array, -2)


def test_a_shard_that_does_not_answer_is_noticed(cluster: Cluster) -> None:
    (member,) = cluster.train(LAYOUT, 1, transport="shm")
    client = Client(member.session, LAYOUT, "float32", 0.3, "shm")
    os.kill(cluster.servers[0].child.pid, signal.SIGSTOP)
    try:
        with pytest.raises(DeadlineExceeded, match="within 0.3 s"):
            client.pull()
    finally:
        os.kill(cluster.servers[0].child.pid, signal.SIGCONT)
    client.close()


def test_a_refusal_raises_the_same_error_in_the_worker(cluster: Cluster) -> None:
    (member,) = cluster.train(LAYOUT, 1, transport="shm")
    with pytest.raises(FutureVersion, match="received 99"):
        member.client.push_pull(ONES, PushInfo(base=(99,)))
    assert member.push_pull(ONES).versions == (1,)
