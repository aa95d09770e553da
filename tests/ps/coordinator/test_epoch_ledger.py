"""The ledger of a script's epoch: leases of whole batches that become smaller, and parts that belong to workers."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from downpour.ps.coordinator.ledger import EpochLedger
from downpour.ps.coordinator.push_groups import PushGroups
from downpour.ps.core.epoch_order import part_bounds

SIZES = {"samples": st.integers(1, 300), "batch": st.integers(1, 16), "workers": st.integers(1, 5)}


def all_leases(ledger: EpochLedger, workers: list[int], data: Any) -> dict[int, list[tuple[int, int]]]:
    """Lease and use everything, each time to a worker that is drawn."""
    found: dict[int, list[tuple[int, int]]] = {worker: [] for worker in workers}
    while not ledger.finished:
        worker = data.draw(st.sampled_from(workers))
        lease = ledger.lease_to(worker, set(workers))
        if lease is None:
            workers = [each for each in workers if each != worker]
            assert workers
            continue
        ledger.check(lease.number, worker, 3, lease.start, lease.stop)
        ledger.use(lease.number, lease.stop)
        found[worker].append((lease.start, lease.stop))
    return found


@given(**SIZES, data=st.data())
def test_leases_are_whole_batches_and_become_smaller(samples: int, batch: int, workers: int, data: Any) -> None:
    ledger = EpochLedger(3, samples, max(batch, samples // 8), batch, workers)
    spans = sorted(span for each in all_leases(ledger, list(range(workers)), data).values() for span in each)
    assert [position for start, stop in spans for position in range(start, stop)] == list(range(samples))
    sizes = [stop - start for start, stop in spans]
    assert all(start % batch == 0 for start, _ in spans) and sizes == sorted(sizes, reverse=True)
    assert sizes[-1] <= batch or len(sizes) == 1


@given(**SIZES, data=st.data())
def test_a_part_is_used_by_its_worker_alone_and_in_order(samples: int, batch: int, workers: int, data: Any) -> None:
    ledger = EpochLedger(3, samples, max(batch, samples // 8), batch, workers, parts=workers)
    bounds = part_bounds(samples, batch, workers)
    for worker, spans in all_leases(ledger, list(range(workers)), data).items():
        used = [position for start, stop in spans for position in range(start, stop)]
        assert used == (list(range(bounds[worker], bounds[worker + 1])) if workers > 1 else used)


def test_the_part_of_an_absent_worker_is_leased_to_others() -> None:
    ledger = EpochLedger(0, 40, 10, 5, 0, parts=2)
    first = ledger.lease_to(0, {0, 1})
    assert first is not None and ledger.lease_to(1, {0, 1}) is not None
    ledger.use(first.number, 10)
    second = ledger.lease_to(0, {0, 1})
    assert second is not None and (second.start, second.stop) == (10, 20)
    ledger.use(second.number, 20)
    assert ledger.lease_to(0, {0, 1}) is None
    ledger.take_back(1)
    third = ledger.lease_to(0, {0})
    assert third is not None and third.start == 20


@given(samples=st.integers(1, 60), batch=st.integers(1, 5), given_back=st.sets(st.integers(0, 40), max_size=20))
def test_positions_that_a_worker_gives_back_are_leased_again(samples: int, batch: int, given_back: set[int]) -> None:
    ledger, used, steps = EpochLedger(2, samples, 3 * batch, batch), list[int](), 0
    while (lease := ledger.lease_to(0, {0})) is not None:
        while ledger.held_by(0, lease.number) is not None:
            start, stop = lease.next, min(lease.next + batch, lease.stop)
            ledger.check(lease.number, 0, 2, start, stop)
            steps += 1
            if steps in given_back:
                ledger.give_back(lease.number, stop)
            else:
                ledger.use(lease.number, stop)
                used += range(start, stop)
    assert ledger.finished and sorted(used) == list(range(samples))


def test_a_lease_of_an_earlier_epoch_is_not_settled() -> None:
    ledger = EpochLedger(1, 40, 10, 5)
    ledger.settle(2, 10)
    assert ledger.used_total == 0


@given(**SIZES, parts=st.booleans(), data=st.data())
def test_a_restored_ledger_leases_what_was_not_used(
    samples: int, batch: int, workers: int, parts: bool, data: Any
) -> None:
    def new() -> EpochLedger:
        return EpochLedger(3, samples, max(batch, samples // 8), batch, workers, workers if parts else 1)

    ledger, everyone, used = new(), set(range(workers)), set[int]()
    for worker in data.draw(st.lists(st.integers(0, workers - 1), max_size=12)):
        lease = ledger.lease_to(worker, everyone)
        if lease is not None and data.draw(st.booleans()):
            stop = min(lease.start + batch, lease.stop)
            ledger.use(lease.number, stop)
            used.update(range(lease.start, stop))
    again = new()
    again.restore(ledger.unused(), *ledger.position)
    assert again.used_total == len(used)
    for spans in all_leases(again, list(range(workers)), data).values():
        for start, stop in spans:
            assert not used & set(range(start, stop))
            used.update(range(start, stop))
    assert used == set(range(samples))


@given(**SIZES, each=st.integers(2, 7), known=st.booleans(), data=st.data())
def test_leases_of_workers_that_add_up_gradients_end_with_a_push(
    samples: int, batch: int, workers: int, each: int, known: bool, data: Any
) -> None:
    """All workers together make as many pushes of `each` batches as one worker does.

    One worker trains alone until the first push shows this number.
    """
    groups, leased = PushGroups(), dict.fromkeys(range(workers), 0)
    for epoch in range(3):
        ledger, waiting = EpochLedger(epoch, samples, max(batch, samples // 8), batch, workers), list(range(workers))
        while not ledger.finished:
            worker = data.draw(st.sampled_from(waiting))
            tells = known or max(leased.values()) >= each
            groups.asked(worker, each - leased[worker] % each if tells else 1, each if tells else 0)
            lease = ledger.lease_to(worker, set(leased), groups)
            if lease is None:
                waiting.remove(worker)
                assert waiting, "nobody may have the last batches"
                continue
            waiting = list(leased)
            ledger.use(lease.number, lease.stop)
            leased[worker] += -(-(lease.stop - lease.start) // batch)
    pushes = sum(count // each for count in leased.values())
    assert pushes == 3 * -(-samples // batch) // each
