"""Train steps that add up gradients: the number of batches of a push, and what a lost session leaves in the sums."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from downpour.protos import parameter_server_pb2 as pb
from downpour.ps.coordinator.ledger import EpochLedger
from downpour.worker.fit.cluster.added_gradients import AddedGradients
from downpour.worker.fit.cluster.leases import Leases, Span

SAMPLES = 36


def use(added: AddedGradients, batches: int, each: int, at: int = 0) -> None:
    """Use batches, of which every `each`-th applies an optimizer, counted from `at`."""
    for batch in range(batches):
        added.begin((at, batch))
        if (at + batch + 1) % each == 0:
            assert added.apply(b"", True)


@pytest.mark.parametrize("since", range(4))
def test_a_known_number_is_not_measured_and_begins_with_what_is_added_up_already(since: int) -> None:
    added = AddedGradients(4, since)
    assert added.next_lease == (4 - since, 4)
    use(added, 4 - since, 4, since)
    assert added.batches_per_push == 4 and added.next_lease[1] == 4
    assert added.unpushed == 0


@pytest.mark.parametrize("left", range(3))
def test_another_call_of_fit_continues_the_sums_that_the_last_one_has_left(left: int) -> None:
    first = AddedGradients()
    use(first, 6 + left, 3)
    assert first.batches_per_push == 3 and first.unpushed == left
    second = AddedGradients()
    second.follow(first)
    assert second.next_lease == (3 - left, 3) and second.unpushed == 0
    use(second, 3 - left, 3, left)
    assert second.batches_per_push == 3 and second.unpushed == 0


def test_a_push_that_was_skipped_is_not_measured() -> None:
    added = AddedGradients()
    use(added, 3, 3)
    for batch in range(3, 5):
        added.begin(batch)
    added.void()
    added.begin(5)
    assert not added.apply(b"", True)
    use(added, 3, 3, 6)
    assert added.batches_per_push == 3


def test_an_optimizer_that_is_applied_to_every_batch_does_not_contain_those_before() -> None:
    """The sum of another optimizer does, which is applied less often."""
    added = AddedGradients()
    added.begin(0)
    assert not added.apply(b"every", False)
    added.void_batch()
    added.begin(1)
    assert added.apply(b"every", True) and not added.apply(b"other", True)
    assert added.apply(b"other", True)


class Rejoining:
    """A worker whose leases are those of a ledger, from which it may take back what it has not used."""

    draining, seed = False, 1

    def __init__(self, lease_samples: int) -> None:
        self.ledger, self.lock = EpochLedger(0, SAMPLES, lease_samples), threading.RLock()
        self.reported = set[int]()

    def lease(self, ahead: bool, to_push: int = 0, per_push: int = 0) -> pb.Task:
        with self.lock:
            if not ahead:
                self.ledger.take_back(0)
            lease = self.ledger.lease(0)
            if lease is None:
                return pb.Task(kind=pb.END if self.ledger.finished else pb.WAIT)
            return pb.Task(kind=pb.TRAIN, lease=lease.number, start=lease.start, stop=lease.stop)

    def report_use(self, number: int, stop: int, returned: bool = False) -> None:
        with self.lock:
            lease = self.ledger.held_by(0, number)
            assert lease is not None and lease.next < stop <= lease.stop
            if returned:
                self.ledger.give_back(number, stop)
            else:
                self.reported.update(range(lease.next, stop))
                self.ledger.use(number, stop)


@settings(max_examples=40, deadline=None)
@given(
    lost=st.lists(st.integers(1, 12), max_size=4),
    each=st.integers(1, 4),
    batches=st.integers(1, 6),
    ahead=st.integers(0, 3),
)
def test_no_sample_is_pushed_twice_however_often_the_session_is_lost(
    lost: list[int], each: int, batches: int, ahead: int
) -> None:
    """The sums of the train step hold batches of the old session, and the data holds more of them."""
    worker: Any = Rejoining(2 * batches)
    leases = Leases(worker, batch_samples=2)
    read, added, pushed, dropped = list[Span](), list[int](), list[int](), set[int]()
    number = since_loss = 0
    while True:
        while len(read) <= ahead and (lease := leases.next_lease() if not read else None) is not None:
            read += [lease._replace(start=at, stop=at + 2) for at in range(lease.start, lease.stop, 2)]
        if not read:
            break
        span, number, since_loss = read.pop(0), number + 1, since_loss + 1
        if lost and since_loss >= lost[0]:
            since_loss = 0 * lost.pop(0)
            with worker.lock:
                leases.void()
                worker.ledger.take_back(0)
        added += [span.start, span.start + 1]
        if number % each == 0:
            start, reported = leases.start_of(span), set(worker.reported)
            if leases.apply(span):
                with worker.lock:
                    worker.ledger.check(span.lease, 0, 0, start, span.stop)
                    worker.ledger.use(span.lease, span.stop)
                pushed += added
            else:
                dropped |= reported.intersection(added)
            added = []
        leases.used(span)
    assert worker.ledger.finished
    assert len(pushed) == len(set(pushed)), "a sample was pushed twice"
    # Samples at the end of a lease without a push are reported: the sum that has them is dropped with the session.
    assert set(range(SAMPLES)) - set(pushed) <= dropped | set(added)


def test_samples_that_are_given_back_are_not_pushed_by_another_optimizer_of_the_step() -> None:
    worker: Any = Rejoining(8)
    leases = Leases(worker, batch_samples=2)
    old = leases.next_lease()
    assert old is not None
    with worker.lock:
        leases.void()
        worker.ledger.take_back(0)
    assert not leases.apply(old, b"other")
    leases.used(old)
    lease = leases.next_lease()
    assert lease is not None
    spans = [lease._replace(start=start, stop=start + 2) for start in (0, 2)]
    assert not leases.apply(spans[0], b"sums") and not leases.apply(spans[0], b"other")
    leases.used(spans[0])
    assert worker.ledger.unused()[0] == (0, 0, 2) and not worker.reported
    assert leases.apply(spans[1], b"sums") and leases.apply(spans[1], b"other")
    leases.end_epoch()


def test_samples_that_are_in_no_update_because_their_lease_had_ended_are_stated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    worker: Any = Rejoining(2)
    leases = Leases(worker, batch_samples=2)
    first = leases.next_lease()
    assert first is not None
    leases.used(first)  # the end of its lease, without a push
    assert worker.reported == {0, 1}
    leases.void()
    second = leases.next_lease()
    assert second is not None and not leases.apply(second)
    assert "Their samples are leased again, except 2 of a lease that had ended." in capsys.readouterr().err
    leases.end_epoch()
