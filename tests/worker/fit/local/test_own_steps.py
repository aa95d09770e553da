"""Train steps of a script's own that do not push every batch, with the plans of pushes of a worker's local steps."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.ps.coordinator.ledger import EpochLedger
from downpour.worker.exchange.push_info import PushInfo
from downpour.worker.fit.cluster.leases import Leases, Span
from downpour.worker.fit.local.gradient_sums import SummedGradientOp
from downpour.worker.fit.local.local_steps import LocalStepsOp
from downpour.worker.plan.push_plan import PushPlan
from tests.support.local_exchange import RATE, Server, op_of

SAMPLES, SIZE = 48, 2
STATE = np.zeros(4, np.float32)


class LeasedServer(Server):
    """A server that checks the lease of each push, and leases the samples to a single worker."""

    draining, epoch, seed = False, 0, 1

    def lend(self, lease_samples: int) -> None:
        self.ledger, self.lock, self.asked = EpochLedger(0, SAMPLES, lease_samples), threading.Lock(), set[int]()

    def lease(self, ahead: bool, to_push: int = 0, per_push: int = 0) -> pb.Task:
        with self.lock:
            self.asked.add(per_push)
            if not ahead:
                assert not self.ledger.open_leases, "a lease is in use that the worker holds no longer"
            lease = self.ledger.lease(0)
            if lease is None:
                return pb.Task(kind=pb.END if self.ledger.finished else pb.WAIT)
            return pb.Task(kind=pb.TRAIN, lease=lease.number, start=lease.start, stop=lease.stop)

    def report_use(self, number: int, stop: int, returned: bool = False) -> None:
        with self.lock:
            lease = self.ledger.held_by(0, number)
            assert lease is not None and lease.next < stop and not returned
            self.ledger.use(number, stop)

    def push(self, vector: np.ndarray, info: PushInfo) -> None:
        with self.lock:
            self.ledger.check(info.lease, 0, 0, info.start, info.stop)
            self.ledger.use(info.lease, info.stop)
        super().push(vector, info)


def train(op: Any, each: int, leases: Leases, local: bool) -> int:
    """Train on an epoch with a train step that adds up `each` batches; return how many are left in its sum."""
    number = 0
    while (lease := leases.next_lease()) is not None:
        for start in range(lease.start, lease.stop, SIZE):
            span, number = lease._replace(start=start, stop=start + SIZE), number + 1
            row = np.array(span, np.int64)
            if number % each == 0:
                step(op, each, row, local)
            if local and op._leaves_steps(row, None):
                op._assign(op._exchanged(op.read())[0])
            op._used(row, None)
    op.finish()
    return number % each


def step(op: Any, each: int, row: np.ndarray, local: bool) -> None:
    if local:
        op._assign(op.read() - np.float32(each))
        if op._counted(np.float32(1), np.float32(0), np.float32(SIZE), row):
            op._assign(op._exchanged(op.read())[0])
    else:
        gradient = np.full(8, each, np.float32)
        op._push_pull(b"", False, gradient, STATE, 1.0, 0.5, SIZE, row, np.float32(RATE))


PLANS = {
    "overlap": PushPlan(overlap=True),
    "overlapped sums": PushPlan(2, 2, overlap=True),
    "sums": PushPlan(4, 4),
    "sums and pulls": PushPlan(2, 4),
    "localsgd:1": PushPlan(payload="difference"),
    "localsgd:3": PushPlan(3, 3, payload="difference"),
}


@pytest.mark.parametrize("lease_batches", [1, 4, 5])
@pytest.mark.parametrize("each", [1, 2, 3])
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_every_batch_is_pushed_once_in_the_order_of_its_lease(plan: PushPlan, each: int, lease_batches: int) -> None:
    local = plan.payload != "gradient"
    op, plain = op_of(LocalStepsOp if local else SummedGradientOp, plan)
    server: Any = LeasedServer(plan, 12, 8)
    server.lend(lease_batches * SIZE)
    leases = Leases(server, SIZE)
    op._member, op._leases, op._reports_ends = server, leases, True
    op.write(plain.flat.copy())
    op.begin_epoch(0)
    left = train(op, each, leases, local)
    assert server.ledger.finished
    expected = SAMPLES // SIZE - left
    assert server.flat[0] == -expected * (1 if local else RATE)
    assert sum(info.steps for info in server.pushed) == expected // each
    assert leases.batches_per_push == each and server.asked <= {0, each}


def test_spans_of_a_push_in_flight_are_not_part_of_the_next_push() -> None:
    op, _ = op_of(SummedGradientOp, PLANS["overlap"])
    server: Any = LeasedServer(op._member.plan, 12, 8)
    server.lend(SAMPLES)
    op._member, op._leases, op._reports_ends = server, Leases(server, SIZE), True
    lease = op._leases.next_lease()
    for start in (0, 2, 4):
        row = np.array(Span(lease.lease, 0, start, start + 2), np.int64)
        step(op, 1, row, local=False)
        op._used(row, None)
    assert [(info.start, info.stop) for info in server.pushed] == [(0, 2), (2, 4), (4, 6)]
    op._leases.end_epoch()
