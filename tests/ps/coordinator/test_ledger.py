"""Every position of every epoch is used exactly once, in any order of leases, uses and returns."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downpour.protos.errors import InvalidRequest
from downpour.ps.coordinator.ledger import Lease, Ledger


@given(
    samples=st.integers(1, 60),
    epochs=st.integers(1, 3),
    lease=st.integers(1, 25),
    batch=st.integers(1, 9),
    seed=st.integers(0, 999),
)
def test_every_position_of_every_epoch_is_used_once(
    samples: int, epochs: int, lease: int, batch: int, seed: int
) -> None:
    ledger, choose = Ledger(samples, epochs, lease), random.Random(seed)
    used: Counter[tuple[int, int]] = Counter()
    held: dict[int, Lease] = {}
    taken_back = 0
    while not ledger.finished:
        worker = choose.randrange(4)
        if worker not in held:
            granted = ledger.lease(worker)
            if granted is None:
                assert held, "every unused position is either leased or available"
            else:
                held[worker] = granted
        elif taken_back < 30 and choose.random() < 0.2:
            before = held.pop(worker)
            assert ledger.take_back(worker) == before.stop - before.next
            taken_back += 1
        else:
            mine = held[worker]
            start, stop = mine.next, min(mine.next + batch, mine.stop)
            ledger.check(mine.number, worker, mine.epoch, start, stop)
            ledger.use(mine.number, stop)
            used.update((mine.epoch, position) for position in range(start, stop))
            if stop == mine.stop:
                del held[worker]
        assert ledger.used_total == used.total()
        assert ledger.open_leases == len(held)
    assert used == Counter((epoch, position) for epoch in range(epochs) for position in range(samples))
    assert all(ledger.complete(epoch) for epoch in range(epochs)) and ledger.epoch == epochs - 1
    assert all(ledger.lease(worker) is None for worker in range(4))


def test_the_next_epoch_opens_without_a_barrier() -> None:
    ledger = Ledger(samples=4, epochs=2, lease_samples=3)
    leases = [lease for _ in range(4) if (lease := ledger.lease(0))]
    assert [(lease.epoch, lease.start, lease.stop) for lease in leases] == [(0, 0, 3), (0, 3, 4), (1, 0, 3), (1, 3, 4)]
    assert ledger.lease(0) is None and ledger.epoch == 0 and not ledger.finished


def test_returned_samples_are_leased_first_in_order() -> None:
    ledger = Ledger(samples=9, epochs=1, lease_samples=3)
    first, second = ledger.lease(0), ledger.lease(0)
    assert first and second
    ledger.use(first.number, 1)
    assert ledger.take_back(0) == 5
    again = [ledger.lease(1) for _ in range(3)]
    assert [(each.start, each.stop) for each in again if each] == [(1, 3), (3, 6), (6, 9)]
    assert ledger.take_back(2) == 0


@pytest.mark.parametrize(
    ("number", "worker", "epoch", "start", "stop", "says"),
    [
        (99, 0, 0, 0, 1, "received lease 99"),
        (1, 1, 0, 0, 1, "worker 1 must hold the lease"),
        (1, 0, 1, 0, 1, "of epoch 0; received .* of epoch 1"),
        (1, 0, 0, 1, 2, "from 0 to at most 4"),
        (1, 0, 0, 0, 5, "at most 4"),
        (1, 0, 0, 0, 0, r"received \[0, 0\)"),
    ],
)
def test_a_worker_uses_its_own_lease_in_order(
    number: int, worker: int, epoch: int, start: int, stop: int, says: str
) -> None:
    ledger = Ledger(samples=8, epochs=2, lease_samples=4)
    ledger.lease(0)
    with pytest.raises(InvalidRequest, match=says):
        ledger.check(number, worker, epoch, start, stop)
    assert ledger.used_total == 0
