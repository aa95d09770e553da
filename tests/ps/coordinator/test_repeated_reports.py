"""A report that a worker repeats, since the reply to it was lost, changes nothing and is no error."""

from __future__ import annotations

import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest
from tests.support.pure.pure_job import PureJob


def test_a_repeated_report_changes_nothing() -> None:
    job = PureJob(epochs=2, workers=1)
    (session,) = job.start(1)
    task = job.take(session, pb.VALIDATE)
    request = pb.ReportRequest(
        session=session, kind=task.kind, epoch=task.epoch, validation=pb.Evaluation(samples=4, loss=1.0, accuracy=0.5)
    )
    job.coordinator.report(request, job.now)
    before = dict(job.coordinator.work.evaluations)
    for _ in range(3):
        job.coordinator.report(request, job.now)
    assert job.coordinator.work.evaluations == before and list(before) == [task.epoch]


def test_a_report_without_a_task_is_refused_for_every_kind() -> None:
    job = PureJob(workers=1)
    (session,) = job.start(1)
    for kind in (pb.VALIDATE, pb.FINISH, 99, -1):
        with pytest.raises(InvalidRequest, match="for the task that worker 0 was given"):
            job.coordinator.report(pb.ReportRequest(session=session, kind=kind, epoch=7), job.now)  # type: ignore[arg-type]
