"""The log of a server says what the start of its job waits for, and since when."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from downpour.ps.coordinator.phase import Phase
from downpour.ps.monitoring.job_log import JobLog


def test_a_wait_is_reported_after_two_seconds_and_then_every_ten() -> None:
    member = SimpleNamespace(worker=0, incarnation=1, pid=7, host="here")
    settings = SimpleNamespace(shards=2, workers=2)
    job: Any = SimpleNamespace(
        phase=Phase.WAITING, settings=settings, shards=[0], membership=SimpleNamespace(members=[])
    )
    log = JobLog(SimpleNamespace(job=job), SimpleNamespace(updates=0), "runs/one")  # type: ignore[arg-type]
    assert {tenth / 10: line for tenth in range(250) for line in log.news(tenth / 10)} == {
        2.0: "waiting for shards for 2 s: 1 of 2 joined",
        12.0: "waiting for shards for 12 s: 1 of 2 joined",
        22.0: "waiting for shards for 22 s: 1 of 2 joined",
    }
    job.shards, job.membership.members = [0, 1], [member]
    assert list(log.news(33.0)) == [
        "worker 0 has joined, process 7 on here", "waiting for workers for 33 s: 1 of 2 joined"
    ]  # fmt: skip
    job.phase = Phase.TRAINING
    assert list(log.news(99.0)) == ["training with 1 worker"]
