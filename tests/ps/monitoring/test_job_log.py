"""The log of a server says what its job waits for, and since when."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from downpour.protos import parameter_server_pb2 as pb
from downpour.ps.coordinator.phase import Phase
from downpour.ps.coordinator.shard_table import ShardTable
from downpour.ps.monitoring.job_log import JobLog


class Shards(list[int]):
    """The shards that have joined, and those among them that have not acknowledged the workers."""

    absent: tuple[int, ...] = ()

    def unsettled(self, view: int) -> tuple[int, ...]:
        assert view == 4
        return self.absent


def test_a_wait_is_reported_after_two_seconds_and_then_every_ten() -> None:
    member = SimpleNamespace(worker=0, incarnation=1, pid=7, host="here")
    settings = SimpleNamespace(shards=2, workers=2)
    job: Any = SimpleNamespace(
        phase=Phase.WAITING,
        settings=settings,
        shards=Shards([0]),
        membership=SimpleNamespace(members=[], number=4),
    )
    log = JobLog(SimpleNamespace(job=job), SimpleNamespace(updates=0), "runs/one")  # type: ignore[arg-type]
    assert {tenth / 10: line for tenth in range(250) for line in log.news(tenth / 10)} == {
        2.0: "waiting for shards for 2 s: 1 of 2 joined",
        12.0: "waiting for shards for 12 s: 1 of 2 joined",
        22.0: "waiting for shards for 22 s: 1 of 2 joined",
    }
    job.shards, job.membership.members = Shards([0, 1]), [member]
    assert list(log.news(33.0)) == [
        "worker 0 has joined, process 7 on here", "waiting for workers for 33 s: 1 of 2 joined"
    ]  # fmt: skip
    job.phase = Phase.TRAINING
    assert list(log.news(99.0)) == ["training with 1 worker"]
    job.shards.absent = (1,)
    assert [line for second in range(100, 114) for line in log.news(second)] == [
        "waiting for shard 1 for 2 s to acknowledge the workers of the job",
        "waiting for shard 1 for 12 s to acknowledge the workers of the job",
    ]
    job.shards.absent = ()
    assert list(log.news(120.0)) == []


def test_a_shard_that_has_joined_is_unsettled_until_it_has_acknowledged_the_workers() -> None:
    table = ShardTable(2)
    table.add(pb.ShardAddress(shard=1, address="127.0.0.1:1"))
    assert table.unsettled(0) == [] and table.settled(0)
    assert table.unsettled(3) == [1] and not table.settled(3)
