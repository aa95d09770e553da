"""Overlap: one push-pull in flight while the next gradient is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.ps.config import JobSettings
from downpour.worker.compute.gradient import Gradient
from downpour.worker.exchange.client import Client, Pulled
from downpour.worker.exchange.push_info import PushInfo
from downpour.worker.plan.push_plan import PushPlan
from downpour.worker.train.pipelined_steps import PipelinedLeaseSteps
from tests.support.cluster import running, vector_layout

N, RATE = 4, 0.5


class Recorder:
    """Notes in which order things happen, on their way to the client."""

    def __init__(self, client: Client) -> None:
        self.client, self.events, self.in_flight = client, list[str](), 0

    def pull(self, pin: int = 0) -> Pulled:
        return self.client.pull(pin)

    def push(self, gradient: Any, info: PushInfo, pull: bool = True) -> None:
        self.in_flight += 1
        assert self.in_flight == 1
        self.events.append("push")
        self.client.push(gradient, info, pull)

    def pulled(self) -> Pulled:
        self.in_flight -= 1
        self.events.append("reply")
        return self.client.pulled()


def lease(count: int) -> pb.Task:
    return pb.Task(kind=pb.TRAIN, lease=0, epoch=0, start=0, stop=count)


def steps_of(link: Any, compute: Any, push_every: int = 1) -> PipelinedLeaseSteps:
    job = pb.JobDescription(batch_size=1, learning_rate=RATE, seed=0)
    return PipelinedLeaseSteps(link, compute, None, PushPlan(push_every, push_every, overlap=True), job, 1, N, 1000)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_reported_staleness_with_overlap_equals_that_of_the_contents(tmp_path: Path, workers: int) -> None:
    """In turns τ = 2P − 1: an own exchange and twice those of the others; the weights are those of that version."""
    with running(tmp_path, workers=workers, learning_rate=RATE) as cluster:
        members = cluster.train(vector_layout(N), workers)
        computed_from: list[float] = []

        def ones(flat: np.ndarray, indices: np.ndarray, seed: Any, step: int) -> Gradient:
            assert (flat == flat[0]).all()
            computed_from.append(-float(flat[0]) / RATE)  # every update takes η: the version
            return Gradient(np.ones(N, np.float32), 1.0, 0.0, 0)

        links = [Recorder(Client(m.session, m.layout, "float32", 30.0, "grpc", overlap=True)) for m in members]
        runs = [steps_of(link, ones).train(lease(20)) for link in links]
        replies = [next(one).replies[0] for _ in range(15) for one in runs]
        assert [reply.staleness for reply in replies[3 * workers :]] == [2 * workers - 1] * (12 * workers)
        for one, link in zip(runs, links, strict=True):
            one.close()
            assert link.in_flight == 0
            link.client.close()
        assert links[0].events[:5] == ["push", "reply", "push", "reply", "push"]
        versions = {reply.applied_version - 1 - reply.staleness for reply in replies}
        assert versions <= set(computed_from)


def test_a_lease_ends_with_nothing_in_flight_and_every_sample_pushed_once(tmp_path: Path) -> None:
    with running(tmp_path, workers=1, learning_rate=RATE) as cluster:
        (member,) = cluster.train(vector_layout(N), 1)
        link = Recorder(Client(member.session, member.layout, "float32", 30.0, "grpc", overlap=True))

        def ones(flat: np.ndarray, indices: np.ndarray, seed: Any, step: int) -> Gradient:
            return Gradient(np.ones(N, np.float32), 1.0, 0.0, 0)

        one = steps_of(link, ones, push_every=3)
        done = [pushed for stop in (10, 1) for pushed in one.train(lease(stop))]
        assert len(done) == 4 + 1
        assert link.in_flight == 0
        assert link.client.pull().flat.tolist() == [-RATE * 11] * N
        link.client.close()


@pytest.mark.parametrize("mode", ["bsp", "backup:1", "ksync:1", "rennala:2", "localsgd:4", "easgd:0.5,4"])
def test_overlap_is_refused_where_its_gradients_would_be_stale(mode: str) -> None:
    with pytest.raises(ValueError, match="--overlap computes from weights one exchange old"):
        JobSettings(mode=mode, overlap=True)


@pytest.mark.parametrize("mode", ["async", "ssp:2", "kasync:1", "softsync:2", "ringmaster:8"])
def test_overlap_is_off_unless_asked_for(mode: str) -> None:
    assert not JobSettings(mode=mode).overlap
    assert JobSettings(mode=mode, overlap=True).overlap


def test_overlap_needs_weights_with_every_push() -> None:
    with pytest.raises(ValueError, match="--overlap needs weights with every push"):
        JobSettings(overlap=True, push_every=1, fetch_every=2)
