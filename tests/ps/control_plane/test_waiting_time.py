"""A job that waits says for how long, also to a caller that asks for the first time."""

from __future__ import annotations

from downpour.protos import parameter_server_pb2 as pb
from downpour.ps.control_plane.messages import ProgressReport
from downpour.ps.trace.feed import TraceFeed
from downpour.ps.trace.metrics import Metrics
from downpour.ps.trace.outcome_log import OutcomeLog
from tests.support.pure.pure_fit import PureFit


def test_the_first_caller_learns_since_when_a_job_waits() -> None:
    job = PureFit()
    report = ProgressReport(job.coordinator, OutcomeLog(Metrics()), "run", TraceFeed(), lambda: None, {})
    begun_s = job.now
    for passed_s in (0.0, 1.0, 30.0):
        report.sample(begun_s + passed_s)
    assert report.message(begun_s + 31.0).elapsed_s == 31.0
    job.start(fit=pb.FitDescription(model="mine", epochs=4, batch_size=4, steps_per_epoch=10))
    assert report.message(job.now).elapsed_s < 31.0, "training has a clock of its own"
