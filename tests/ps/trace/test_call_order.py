"""The recorded order in which a replay admits calls: any recorded order can be repeated, and nothing else."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from downpour.protos.errors import InvalidRequest
from downpour.ps.trace.call_log import DTYPE, Call, lease_seq
from downpour.ps.trace.call_order import CallOrder

Recorded = tuple[Call, int, int]  # call, worker, seq


def records(calls: list[Recorded]) -> np.ndarray:
    """Return calls in the format of the log."""
    return np.array([(seq, int(call), worker, 1) for call, worker, seq in calls], DTYPE)


def order_of(calls: list[Recorded]) -> CallOrder:
    """Return an order that has begun."""
    order = CallOrder(records([(Call.BEGIN, 0, 0), *calls]))
    order.begin(pulls=True)
    return order


@pytest.mark.parametrize("seed", range(20))
def test_workers_that_try_at_any_time_make_the_calls_in_the_recorded_order(seed: int) -> None:
    random = np.random.default_rng(seed)
    seqs = {worker: itertools.count(1) for worker in range(3)}
    calls: list[Recorded] = []
    for worker in random.integers(0, 3, 40).tolist():
        calls += [(Call.PUSH, worker, next(seqs[worker])), (Call.PULL, worker, 0)]
    order, made = order_of(calls), list[Recorded]()
    left = {worker: [call for call in calls if call[1] == worker] for worker in range(3)}
    while any(left.values()):
        worker = int(random.integers(0, 3))
        if not left[worker]:
            continue
        call, _, seq = left[worker][0]
        if order.admits(call, worker, seq):
            order.add(call, worker, 1, seq)
            made.append(left[worker].pop(0))
        else:
            order.check(call, worker, seq)  # it waits, and does what it did
    assert made == calls


def test_a_worker_that_does_something_else_is_named() -> None:
    order = order_of([(Call.PUSH, 0, 1), (Call.PUSH, 1, 1), (Call.PULL, 1, 0)])
    with pytest.raises(InvalidRequest, match=r"Received: PULL of worker 1, whose next request in the record is PUSH 1"):
        order.check(Call.PULL, 1)
    with pytest.raises(InvalidRequest, match=r"Received: PUSH 1 of worker 2, whose next request in the record is none"):
        order.check(Call.PUSH, 2, 1)


def test_a_worker_waits_for_its_lease_and_for_the_end_of_the_leases_of_an_epoch() -> None:
    calls = [(Call.LEASE, 1, lease_seq(0, 1)), (Call.LEASE, 0, lease_seq(0, 2)), (Call.LEASE, 0, lease_seq(1, 1))]
    order = order_of(calls)
    assert order.lease_waits(0, 0) and not order.lease_waits(1, 0)
    order.add(Call.LEASE, 1, 1, lease_seq(0, 1))
    assert order.lease_waits(1, 0)  # it has none any more, and another worker's is not granted yet
    order.add(Call.LEASE, 0, 1, lease_seq(0, 2))
    assert not order.lease_waits(1, 0) and not order.lease_waits(0, 0)


def test_nothing_passes_a_mark_before_the_weights_are_written() -> None:
    order = order_of([(Call.PUSH, 0, 1), (Call.MARK, 0, 1), (Call.PUSH, 0, 2)])
    order.add(Call.PUSH, 0, 1, 1)
    assert order.target == 1 and not order.admits(Call.PUSH, 0, 2)
    order.pass_mark()
    assert order.target is None and order.admits(Call.PUSH, 0, 2)


def test_calls_are_free_outside_of_fit_and_members_are_not_ordered() -> None:
    order = CallOrder(records([(Call.BEGIN, 0, 0), (Call.PUSH, 0, 1)]))
    assert order.admits(Call.RATES)
    order.begin(pulls=True)
    assert not order.admits(Call.RATES)
    order.pause()
    assert order.admits(Call.RATES)


def test_the_record_makes_the_calls_on_members_once_a_worker_is_present() -> None:
    order = order_of([(Call.JOIN, 0, 0), (Call.JOIN_RESTING, 1, 0), (Call.RESUME, 1, 0), (Call.PUSH, 1, 1)])
    driven: list[tuple[Call, int]] = []

    def drive() -> None:
        if order.driven is not None:
            driven.append(order.driven)
            order.pass_driven()

    order.add_advance_callback(drive)
    order.add(Call.JOIN_RESTING, 1, 1)
    assert driven == [] and not order.admits(Call.PUSH, 1, 1)
    order.add(Call.JOIN_RESTING, 0, 1)
    assert driven == [(Call.JOIN, 0), (Call.JOIN_RESTING, 1), (Call.RESUME, 1)]
    assert order.admits(Call.PUSH, 1, 1)


def test_the_log_of_several_calls_of_fit_is_one() -> None:
    order = order_of([(Call.PUSH, 0, 1), (Call.BEGIN, 0, 0), (Call.PUSH, 0, 1)])
    order.add(Call.PUSH, 0, 1, 1)
    order.pause()
    order.begin(pulls=True)
    order.add(Call.PUSH, 0, 2, 1)
    log = np.frombuffer(order.take(), DTYPE)
    assert log["call"].tolist() == [Call.BEGIN, Call.PUSH, Call.BEGIN, Call.PUSH]
