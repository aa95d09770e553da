"""`downpour.connect` with real servers: what clients pull and push, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import downpour
from downpour.protos.errors import InvalidRequest, JobConflict, LayoutMismatch, Unreachable, Unsupported
from downpour.protos.transports import TRANSPORTS
from downpour.ps.core.rules.update_rules import OPTIMIZERS
from tests.support.cluster import Cluster, running, wait_until
from tests.support.processes.restarts import await_checkpoint, start_again

WEIGHTS: dict[str, Any] = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(3)}
GRADIENTS: dict[str, Any] = {"w": np.ones((2, 3)), "b": [1.0, 2.0, 3.0]}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running(tmp_path, shards=2, script=True, workers=1) as cluster:
        yield cluster


def equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_push_moves_the_weights_by_the_learning_rate_times_the_gradient(tmp_path: Path, transport: str) -> None:
    with (
        running(tmp_path, shards=2, script=True, workers=1, transport=transport) as cluster,
        downpour.connect(cluster.address, WEIGHTS, optimizer="sgd", learning_rate=0.5) as client,
    ):
        assert client.shapes == {"w": (2, 3), "b": (3,)}
        assert equal(client.pull(), {name: np.asarray(array, np.float32) for name, array in WEIGHTS.items()})
        weights, reply = client.push_pull(GRADIENTS, samples=4, loss=2.0)
        assert (reply.outcome, reply.staleness, reply.version, reply.learning_rate) == ("applied", 0, (1, 1), 0.5)
        assert equal(weights, {"w": WEIGHTS["w"] - np.float32(0.5), "b": np.array([-0.5, -1.0, -1.5], np.float32)})
        assert client.push(GRADIENTS).version == (2, 2)
        assert equal(client.pull(), {"w": WEIGHTS["w"] - 1, "b": np.array([-1, -2, -3], np.float32)})


def test_the_staleness_counts_the_updates_of_others_since_the_pull(cluster: Cluster) -> None:
    with (
        downpour.connect(cluster.address, WEIGHTS) as one,
        downpour.connect(cluster.address) as other,  # it receives the weights of the first
    ):
        assert equal(one.pull(), other.pull()) and (one.rank, other.rank) == (0, 1)
        for count in range(3):
            assert one.push_pull(GRADIENTS)[1].staleness == min(count, 1)
            assert other.push(GRADIENTS).staleness == 2 * count + 1
        other.pull()
        assert other.push(GRADIENTS).staleness == 0


def test_clients_come_and_go_and_the_weights_stay(cluster: Cluster) -> None:
    with downpour.connect(cluster.address, WEIGHTS, learning_rate=0.1) as client:
        client.pull()
        expected = client.push_pull(GRADIENTS)[0]
    with downpour.connect(cluster.address, WEIGHTS, learning_rate=0.1) as client:
        assert equal(client.pull(), expected)


def test_concurrent_pushes_of_many_clients_are_applied_exactly_once(cluster: Cluster) -> None:
    first = downpour.connect(cluster.address, WEIGHTS, learning_rate=1.0)

    def train(pushes: int) -> None:
        with downpour.connect(cluster.address) as client:
            client.pull()
            for _ in range(pushes):
                client.push_pull({"w": np.ones((2, 3)), "b": np.ones(3)})

    with first, ThreadPoolExecutor(4) as pool:
        list(pool.map(train, [10, 20, 30, 40]))
        assert equal(first.pull(), {"w": WEIGHTS["w"] - 100, "b": np.full(3, -100, np.float32)})


def test_gradients_that_are_not_finite_are_dropped_and_said_so(cluster: Cluster) -> None:
    with downpour.connect(cluster.address, WEIGHTS) as client:
        before = client.pull()
        weights, reply = client.push_pull({**GRADIENTS, "b": [np.nan, 0, 0]})
        assert reply.outcome == "dropped" and "finite" in reply.reason and equal(weights, before)


@pytest.mark.parametrize(
    ("gradients", "message"),
    [
        ({"w": np.ones((2, 3))}, r"no arrays for \['b'\]"),
        ({**GRADIENTS, "c": 1.0}, r"\['c'\]"),
        ({**GRADIENTS, "b": np.ones(2)}, r"'b' must have the shape \[3\]"),
    ],
)
def test_gradients_that_do_not_fit_are_refused_and_change_nothing(
    cluster: Cluster, gradients: dict[str, np.ndarray], message: str
) -> None:
    with downpour.connect(cluster.address, WEIGHTS) as client:
        before = client.pull()
        with pytest.raises(InvalidRequest, match=message):
            client.push(gradients)
        assert equal(client.pull(), before)


def test_a_gradient_needs_weights_that_it_was_computed_from(cluster: Cluster) -> None:
    with (
        downpour.connect(cluster.address, WEIGHTS) as client,
        pytest.raises(InvalidRequest, match="Call pull"),
    ):
        client.push(GRADIENTS)


def test_clients_must_agree_on_shapes_and_optimizer(cluster: Cluster) -> None:
    with downpour.connect(cluster.address, WEIGHTS, optimizer="adam"):
        with pytest.raises(LayoutMismatch):
            downpour.connect(cluster.address, {"w": np.ones(3)}, optimizer="adam")
        with pytest.raises(JobConflict, match="same optimizers, adam; received sgd"):
            downpour.connect(cluster.address, WEIGHTS)


def test_an_invalid_call_of_connect_is_refused(cluster: Cluster) -> None:
    with pytest.raises(LayoutMismatch, match="initial weights"):
        downpour.connect(cluster.address)
    with pytest.raises(Unsupported, match="optimizer must be one of"):
        downpour.connect(cluster.address, WEIGHTS, optimizer="sgdd")
    with pytest.raises(InvalidRequest, match="finite"):
        downpour.connect(cluster.address, {"w": np.array([np.inf])})
    with pytest.raises(Unsupported, match="needs the address"):
        downpour.connect(weights=WEIGHTS)


def test_a_server_of_built_in_training_refuses_clients(tmp_path: Path) -> None:
    with (
        running(tmp_path, shards=1, workers=1) as cluster,
        pytest.raises(Unsupported, match="--script"),
    ):
        downpour.connect(cluster.address, WEIGHTS)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_trains(cluster: Cluster, optimizer: str) -> None:
    with downpour.connect(cluster.address, {"w": np.array([3, -2])}, optimizer=optimizer) as client:
        weights = client.pull()
        start = np.square(weights["w"]).sum()
        for _ in range(20):
            weights, _ = client.push_pull({"w": 2 * weights["w"]})
        assert np.square(weights["w"]).sum() < start


def test_a_client_sees_that_the_job_is_asked_to_end(cluster: Cluster) -> None:
    with downpour.connect(cluster.address, WEIGHTS) as client:
        assert not client.stopping
        client._control.stop("the test is over")
        wait_until(lambda: client.stopping, "the client is told to stop")


@pytest.mark.parametrize("shard", [0, 1])
def test_a_client_waits_for_a_server_that_is_started_again_and_goes_on(tmp_path: Path, shard: int) -> None:
    settings: dict[str, Any] = {"checkpoint_every": "1", "reconnect_s": 60}
    with (
        running(tmp_path, shards=2, script=True, workers=1, **settings) as cluster,
        downpour.connect(cluster.address, WEIGHTS, learning_rate=1.0) as client,
    ):
        client.pull()
        for _ in range(5):
            client.push_pull(GRADIENTS)
        await_checkpoint(cluster, 5)
        address = cluster.address if shard == 0 else str(client._session.reply.shards[1].address)
        cluster.servers[shard].kill()
        flags = ["--script"] if shard == 0 else []
        with ThreadPoolExecutor(1) as pool:
            pushed = pool.submit(client.push_pull, GRADIENTS)
            start_again(cluster, shard, address, *flags, shards=2, workers=1, **settings)
            weights, reply = pushed.result(60)
        assert reply.outcome == "lost"
        assert equal(weights, {"w": WEIGHTS["w"] - 5, "b": np.array([-5, -10, -15], np.float32)})
        assert client.push_pull(GRADIENTS)[1].outcome == "applied"


def test_a_client_whose_server_does_not_return_learns_of_it(tmp_path: Path) -> None:
    with (
        running(tmp_path, script=True, workers=1, reconnect_s=1) as cluster,
        downpour.connect(cluster.address, WEIGHTS) as client,
    ):
        client.pull()
        cluster.servers[0].kill()
        with pytest.raises(Unreachable, match=r"did not return within 1 s \(its --reconnect-s\)"):
            client.push_pull(GRADIENTS)


def test_a_job_of_clients_has_no_model_and_no_data_of_the_registry(cluster: Cluster) -> None:
    with downpour.connect(cluster.address, WEIGHTS) as client:
        client.pull()
        progress = cluster.status()
    assert (progress.model, progress.dataset) == ("script", "script")


@pytest.mark.parametrize("address", ["nope", "host:", "http://host:1", "host:70000", "", 7171])
def test_an_address_that_is_none_is_refused_at_once(address: str) -> None:
    with pytest.raises(Unsupported, match=f"must be HOST:PORT.*Received: {address!r}. Pass the address"):
        downpour.connect(address, {"w": [1.0]})


@pytest.mark.parametrize(
    "weights", [{"w": ["a"]}, {"w": "1.5"}, {"w": None}, {"w": [[1.0], [1.0, 2.0]]}, {"w": 1j}, [1.0]]
)
def test_weights_that_are_no_numbers_are_refused_before_a_server_is_asked(weights: Any) -> None:
    with pytest.raises(InvalidRequest, match="must be (an array of real numbers|arrays by name). Received: .* Pass"):
        downpour.connect("127.0.0.1:1", weights)
