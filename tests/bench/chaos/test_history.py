"""The history check finds what cannot have happened, and nothing in what can."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from downpour.bench.chaos.history import faults_of
from downpour.ps.trace.format import DTYPE
from tests.support.cluster import running


def history() -> np.ndarray:
    """Two workers in turns, each from the weights of its own last reply."""
    trace = np.zeros(20, DTYPE)
    trace["version"] = np.arange(1, 21)
    trace["worker"] = np.arange(20) % 2
    trace["incarnation"] = 1
    trace["seq"] = np.arange(20) // 2 + 1
    trace["base_version"] = np.maximum(np.arange(20) - 1, 0)
    trace["staleness"] = trace["version"] - 1 - trace["base_version"]
    return trace


def test_a_possible_history_is_accepted() -> None:
    assert faults_of(history(), slack=1) == []
    assert faults_of(np.zeros(0, DTYPE)) == []


@pytest.mark.slow
@pytest.mark.parametrize("mode, slack, shards", [("async", None, 2), ("ssp:2", 2, 2), ("ssp:0", 0, 1), ("bsp", 0, 1)])
def test_the_history_of_a_real_job_is_accepted(tmp_path: Path, mode: str, slack: int | None, shards: int) -> None:
    """Three processes push, two of them as fast as possible and one slowly; no worker evaluates meanwhile."""
    with running(tmp_path, shards, workers=3, epochs=1, batch_size=1, mode=mode) as cluster:
        train = ["-m", "tests.support.numpy_worker", "train", f"--server={cluster.address}", "--size=50"]
        workers = [cluster.start(f"worker-{k}", *train, f"--pause-ms={3 * (k == 2)}") for k in range(3)]
        assert [worker.wait() for worker in workers] == [0, 0, 0]
        assert [server.wait() for server in cluster.servers] == [0] * shards
        for shard in range(shards):
            trace = cluster.trace(shard)
            assert faults_of(trace, slack) == []
            assert len(np.unique(trace["worker"])) == 3


def repeated(trace: np.ndarray) -> None:
    trace["seq"][7] = trace["seq"][5]


def lost(trace: np.ndarray) -> None:
    trace["version"][9:] += 1
    trace["base_version"][9:] += 1


def late(trace: np.ndarray) -> None:
    trace["staleness"][3] += 1


def blind(trace: np.ndarray) -> None:
    trace["base_version"][6] -= 4
    trace["staleness"][6] += 4


def ahead(trace: np.ndarray) -> None:
    trace["worker"][2:8] = 0
    trace["seq"] = np.arange(1, 21)


@pytest.mark.parametrize(
    "mutate, says",
    [
        (repeated, "more than one outcome"),
        (lost, "steps of one"),
        (late, "staleness"),
        (blind, "did not contain its own push"),
        (ahead, "clocks differ"),
    ],
)
def test_an_impossible_history_is_detected(mutate: Callable[[np.ndarray], None], says: str) -> None:
    trace = history()
    mutate(trace)
    assert any(says in fault for fault in faults_of(trace, slack=1)), faults_of(trace, slack=1)
