"""A replay leases the samples in the order and in the sizes of its run."""

from __future__ import annotations

import numpy as np
import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.ps.control_plane.recorded_leases import RecordedLeases
from downpour.ps.trace.call_log import DTYPE, Call, CallLog
from downpour.ps.trace.call_order import CallOrder
from tests.support.pure.pure_fit import PureFit

Span = tuple[int, int, int]  # worker, start, stop
SAMPLES, BATCH, EACH = 96, 2, 3


def leases_of(calls: CallLog, known: dict[int, int]) -> list[Span]:
    """Lease all samples of an epoch in turns; a worker knows the batches of a push after so many leases."""
    job = PureFit(lease_samples=8)
    data = pb.DatasetInfo(name="script", checksum="c", train_samples=SAMPLES, lease_samples=8, batch_samples=BATCH)
    job.start(data=data)
    job.begin_epoch()
    calls.begin(pulls=False)
    leases, found, leased, counts = RecordedLeases(job.coordinator, calls), list[Span](), {0: 0, 1: 0}, {0: 0, 1: 0}
    waits = 0
    while waits < 2:
        for worker in (0, 1):
            request = pb.LeaseRequest(session=job.sessions[worker], epoch=0, ahead=True)
            if counts[worker] >= known[worker]:
                request.batches_to_push, request.batches_per_push = EACH - leased[worker] % EACH, EACH
            task = leases.next_task(request)
            waits = 0 if task.kind == pb.TRAIN else waits + 1
            if task.kind == pb.TRAIN:
                found.append((worker, task.start, task.stop))
                leased[worker] += -(-(task.stop - task.start) // BATCH)
                counts[worker] += 1
    return found


@pytest.mark.parametrize("known", [{0: 0, 1: 0}, {0: 2, 1: 1}, {0: 100, 1: 3}, {0: 100, 1: 100}])
def test_a_replay_leases_as_its_run_did_whenever_the_workers_know_the_batches_of_a_push(known: dict[int, int]) -> None:
    log = CallLog()
    run = leases_of(log, known)
    records = np.frombuffer(log.take(), DTYPE)
    assert (records["call"] == Call.LEASE).sum() == (records["call"] == Call.LEASE_SIZE).sum() == len(run)
    for other in ({0: 0, 1: 0}, {0: 1, 1: 4}, {0: 100, 1: 100}):
        assert leases_of(CallOrder(records), other) == run


def test_a_record_without_sizes_leaves_them_to_the_servers() -> None:
    log = CallLog()
    run = leases_of(log, {0: 0, 1: 0})
    records = np.frombuffer(log.take(), DTYPE)
    assert leases_of(CallOrder(records[records["call"] != Call.LEASE_SIZE]), {0: 0, 1: 0}) == run
