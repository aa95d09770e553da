"""Who may join a job: what the first worker brings holds for all."""

from __future__ import annotations

from typing import Any

import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest, JobConflict, LayoutMismatch, TooLarge, Unsupported
from downpour.protos.layout import TRAINED, Layout
from downpour.ps.coordinator.admission import LARGEST_LAYOUT
from tests.support.pure.pure_job import EVERYTHING, PureJob


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        ({"protocol": 99}, Unsupported, "protocol 3; received 99"),
        ({"job": "other"}, JobConflict, "runs job 'job-1'; received a worker of job 'other'"),
        ({"layout": pb.Layout(tensors=[pb.Tensor(name="v", shape=[2])])}, LayoutMismatch, "received 2, which has"),
        (
            {"data": pb.DatasetInfo(checksum="d" * 64)},
            LayoutMismatch,
            "checksum cccccccccccc .* received .*dddddddddddd",
        ),
        ({"data": pb.DatasetInfo(train_samples=21)}, LayoutMismatch, "20 training samples; received .*21"),
    ],
)
def test_a_worker_of_another_job_is_refused_without_an_effect(
    fields: dict[str, Any], error: type[Exception], says: str
) -> None:
    job = PureJob()
    sessions = job.start()
    with pytest.raises(error, match=says):
        job.join(**fields)
    assert len(job.state.membership) == 2
    job.run(sessions)
    assert job.used == EVERYTHING


@pytest.mark.parametrize("shape", [[LARGEST_LAYOUT + 1], [1 << 20, 1 << 20], [2**64 - 1] * 32])
def test_a_model_beyond_the_largest_is_refused_before_memory_is_taken_for_it(shape: list[int]) -> None:
    job = PureJob()
    request = job.request()
    request.layout.tensors[0].shape[:] = shape
    with pytest.raises(TooLarge, match=f"at most {LARGEST_LAYOUT:,} weights"):
        job.coordinator.register(request, 0.0)
    assert job.state.layout is None and not job.commands and not len(job.state.membership)


def test_the_first_worker_fixes_nothing_if_it_is_refused() -> None:
    job = PureJob(shards=3)
    empty = job.request()
    empty.data.train_samples = 0
    small = job.request()
    small.layout.CopyFrom(Layout.of([("w", (2,), TRAINED)]).to_proto())
    other = job.request()
    other.data.checksum = "d" * 64
    for request, error in ((empty, LayoutMismatch), (small, InvalidRequest)):
        with pytest.raises(error):
            job.coordinator.register(request, 0.0)
    job.coordinator.register(other, 0.0)
    assert job.state.data is not None and job.state.data.checksum == "d" * 64


def test_a_model_that_differs_in_its_configuration_alone_is_refused() -> None:
    job = PureJob()
    for fingerprint in ("a", "", "a"):
        job.coordinator.work.check_worker(pb.RegisterRequest(environment={"model": fingerprint}), 0.0)
    with pytest.raises(LayoutMismatch, match="another configuration"):
        job.coordinator.work.check_worker(pb.RegisterRequest(environment={"model": "b"}), 0.0)
