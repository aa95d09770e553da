"""Leased samples: each of an epoch exactly once, in one process and over workers that share a ledger."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import Unreachable, Unsupported
from downpour.ps.coordinator.ledger import EpochLedger
from downpour.worker.fit.cluster.added_gradients import warn_of_unpushed
from downpour.worker.fit.cluster.leases import Leases, Span
from downpour.worker.fit.data.leased_batches import LEASES_PER_WORKER, LeasedSamples
from downpour.worker.fit.data.leased_dataset import LeasedDataset
from tests.support.pure.leases import Ledger, Worker

WAIT_S = 30.0


class Training:
    """A worker that trains on leased samples; each iteration is one epoch."""

    def __init__(self, dataset: LeasedDataset, worker: Any) -> None:
        self._leases = Leases(worker)
        self._batches = dataset.leased_arrays(None, (worker.seed, 1)).batches(self._leases)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Every batch is pushed with the span that it comes from."""
        for values, batch in self._batches:
            span = Span(*values.numpy().tolist())
            if self._leases.valid(span):
                yield span, batch
                assert self._leases.apply(span)
                self._leases.pushed(span)


def alone(dataset: LeasedDataset) -> np.ndarray:
    batches = [dataset[index] for index in range(dataset.num_batches)]
    dataset.on_epoch_end()
    return np.concatenate([batch[0] for batch in batches])


@settings(max_examples=50)
@given(samples=st.integers(1, 100), batch_size=st.integers(1, 40))
def test_a_script_alone_gets_every_sample_once_in_each_epoch(samples: int, batch_size: int) -> None:
    first, second = (LeasedDataset(np.arange(samples), batch_size=batch_size) for _ in range(2))
    epochs = [alone(first) for _ in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(samples))
        np.testing.assert_array_equal(epoch, alone(second))
    if samples > 20:
        assert not np.array_equal(epochs[0], epochs[1]) and not np.array_equal(epochs[1], epochs[2])


@settings(max_examples=10)
@given(samples=st.integers(1, 60), batch_size=st.integers(1, 16), batches=st.integers(1, 9))
def test_a_worker_trains_on_the_samples_of_its_leases(samples: int, batch_size: int, batches: int) -> None:
    x = np.arange(samples)
    dataset, ledger = LeasedDataset(x, 2 * x, batch_size), Ledger(samples, batches * batch_size)
    worker: Any = Worker(ledger)
    training = Training(dataset, worker)
    for epoch in range(2):
        ledger.begin_epoch(epoch)
        order = np.random.default_rng((worker.seed, epoch)).permutation(samples)
        seen = []
        for span, (inputs, targets) in training:
            np.testing.assert_array_equal(inputs, order[span.start : span.stop])
            np.testing.assert_array_equal(targets, 2 * inputs)
            assert len(inputs) <= batch_size
            seen += inputs.numpy().tolist()
        assert sorted(seen) == list(range(samples))


def test_workers_share_an_epoch_without_an_overlap() -> None:
    ledger = Ledger(100, 8)

    def train(dataset: LeasedDataset) -> list[int]:
        worker: Any = Worker(ledger)
        return [sample for _, (inputs,) in Training(dataset, worker) for sample in inputs.numpy()]

    with ThreadPoolExecutor(3) as pool:
        parts = list(pool.map(train, (LeasedDataset(np.arange(100), batch_size=4) for _ in range(3))))
    assert sorted(sum(parts, [])) == list(range(100))


def test_one_lease_is_requested_ahead_of_the_data() -> None:
    ledger = Ledger(8, 2)
    leases = Leases(Worker(ledger))  # type: ignore[arg-type]
    for start in (0, 2, 4, 6):
        lease = leases.next_lease()
        assert lease is not None and (lease.start, lease.stop) == (start, start + 2)
        assert ledger.at <= start + 6  # the one that is read, one ahead, and one that is requested
    assert leases.next_lease() is None


def test_batches_without_a_push_are_covered_by_the_next_one_or_reported() -> None:
    """A train step need not push every batch, for example if it adds up gradients."""
    reports: list[tuple[int, int]] = []

    class Reporting(Worker):
        def report_use(self, lease: int, stop: int) -> None:
            reports.append((lease, stop))

    leases = Leases(Reporting(Ledger(12, 6)))  # type: ignore[arg-type]
    pushed = list[tuple[int, int]]()
    for number in range(2):
        lease = leases.next_lease()
        assert lease is not None
        for batch in range(3):
            span = lease._replace(start=lease.start + 2 * batch, stop=lease.start + 2 * batch + 2)
            if (number, batch) in ((0, 1), (1, 2)):
                pushed.append((leases.start_of(span), span.stop))
                assert leases.apply(span)
            leases.used(span)
    assert pushed == [(0, 4), (6, 12)] and reports == [(1, 6)]


@pytest.mark.parametrize("kind", [Unreachable, ValueError, OSError])
def test_whatever_ends_the_requests_reaches_the_thread_that_reads_the_data(kind: type[Exception]) -> None:
    class Failing(Worker):
        def lease(self, ahead: bool = False, to_push: int = 0, per_push: int = 0) -> pb.Task:
            raise kind("the cause")

    with pytest.raises(kind, match="the cause"):
        Leases(Failing(Ledger(4, 2))).next_lease()  # type: ignore[arg-type]


def test_a_lease_is_in_use_until_the_last_push_of_a_train_step() -> None:
    """The servers may end the epoch once a worker has used all its samples, but not between two pushes of a step."""
    leases = Leases(Worker(Ledger(4, 2)))  # type: ignore[arg-type]
    for _ in range(2):
        span = leases.next_lease()
        assert span is not None
        for _ in range(2):
            assert leases.apply(span)
            leases.pushed(span, ends=False)
            assert leases.is_last(span) and leases.is_pushed(span)
        leases.used(span)
        assert not leases.is_last(span)


def test_batches_of_a_lost_session_are_not_pushed() -> None:
    leases = Leases(Worker(Ledger(4, 2)))  # type: ignore[arg-type]
    lease = leases.next_lease()
    assert lease is not None and leases.add(lease)
    leases.clear()
    assert not leases.valid(lease) and not leases.add(lease)
    following = leases.next_lease()
    assert following is not None and leases.add(following) and leases.valid(following)


@settings(max_examples=20)
@given(lost=st.lists(st.integers(1, 10), max_size=4), batches=st.integers(1, 6))
def test_every_sample_is_pushed_once_however_often_the_session_is_lost(lost: list[int], batches: int) -> None:
    """After a lost session the servers lease what was not pushed again; the worker has read some of it already."""
    ledger = EpochLedger(0, 40, 2 * batches)

    class Rejoining:
        draining, seed = False, 1

        def lease(self, ahead: bool, to_push: int = 0, per_push: int = 0) -> pb.Task:
            with lock:
                if not ahead:
                    ledger.take_back(0)
                lease = ledger.lease(0)
                if lease is None:
                    return pb.Task(kind=pb.END if ledger.finished else pb.WAIT)
            return pb.Task(kind=pb.TRAIN, lease=lease.number, start=lease.start, stop=lease.stop)

    lock = threading.Lock()
    leases, pushed = Leases(Rejoining()), list[int]()  # type: ignore[arg-type]
    dataset, losses = LeasedDataset(np.arange(40), batch_size=2), list(lost)
    count = 0
    for values, (inputs,) in dataset.leased_arrays(None, (1, 1)).batches(leases):
        span, count = Span(*values.numpy().tolist()), count + 1
        if losses and count >= losses[0]:
            count = 0 * losses.pop(0)
            with lock:
                leases.clear()
                ledger.take_back(0)
        if not leases.apply(span):
            continue
        with lock:
            ledger.check(span.lease, 0, 0, span.start, span.stop)
            ledger.use(span.lease, span.stop)
        pushed += inputs.numpy().tolist()
        leases.pushed(span)
    assert sorted(pushed) == list(range(40))


def test_leases_are_requested_only_after_the_last_request_of_an_earlier_thread_has_ended() -> None:
    """It says that the worker holds no lease: the coordinator would take back what the later thread has received."""
    begun, released, early = threading.Event(), threading.Event(), threading.Event()
    calls: list[str] = []

    class Slow:
        draining, seed = False, 1

        def lease(self, ahead: bool, to_push: int = 0, per_push: int = 0) -> pb.Task:
            calls.append("request")
            if len(calls) == 1:
                begun.set()
                assert released.wait(60)
                calls.append("reply")
                return pb.Task(kind=pb.WAIT)
            if not released.is_set():
                early.set()
            return pb.Task(kind=pb.TRAIN, lease=7, start=0, stop=2)

    leases = Leases(Slow())  # type: ignore[arg-type]

    def lose_the_session() -> None:
        assert begun.wait(60)
        leases.clear()  # `next_lease` starts another thread
        early.wait(0.2)  # which must not happen
        released.set()

    losing = threading.Thread(target=lose_the_session)
    losing.start()
    span = leases.next_lease()
    losing.join(60)
    leases.end_epoch()
    assert not early.is_set()
    assert span is not None and span.lease == 7 and calls[:3] == ["request", "reply", "request"]


def test_a_draining_worker_gets_no_more_samples() -> None:
    worker: Any = Worker(Ledger(4, 2))
    leases = Leases(worker)
    worker.draining = True
    assert leases.next_lease() is None
    assert not leases.add(Span(1, 0, 0, 2))


def test_an_epoch_may_have_fewer_steps_than_the_dataset() -> None:
    dataset = LeasedDataset(np.arange(50), batch_size=8)
    assert [dataset.epoch_samples(steps) for steps in (None, 1, 6, 7)] == [50, 8, 48, 50]
    with pytest.raises(Unsupported, match="at most the number of batches of a LeasedDataset, 7. Received: 8"):
        dataset.epoch_samples(8)


@pytest.mark.parametrize(("samples", "batch_size", "workers"), [(6400, 8, 2), (6400, 8, 7), (10, 8, 2), (999, 10, 3)])
def test_an_epoch_has_enough_leases_for_all_workers(samples: int, batch_size: int, workers: int) -> None:
    leased = LeasedSamples(samples, batch_size)
    lease = leased.lease_samples(workers)
    assert leased.lease_samples(workers, batches=3) == 3 * batch_size
    assert lease % batch_size == 0 and lease >= batch_size
    assert lease == batch_size or samples / lease >= LEASES_PER_WORKER * workers
    assert leased.lease_samples(workers, push_every=4) % (4 * batch_size) == 0, "a whole number of pushes"


def test_arrays_may_be_nested_and_targets_missing() -> None:
    x = {"a": np.arange(10), "b": np.arange(20).reshape(10, 2)}
    dataset = LeasedDataset(x, (np.arange(10), np.arange(10) + 1), batch_size=4)
    inputs, (first, second) = dataset[0]
    np.testing.assert_array_equal(inputs["b"][:, 0], 2 * inputs["a"])
    np.testing.assert_array_equal(first, inputs["a"])
    np.testing.assert_array_equal(second, first + 1)
    few, same = dataset.peek()
    assert same is dataset and len(few[0]["a"]) == 2
    assert len(LeasedDataset(np.arange(10), batch_size=4)[2]) == 1
    worker: Any = Worker(Ledger(10, 4))
    shapes = [inputs["b"].shape for _, (inputs, _) in Training(dataset, worker)]
    assert shapes == [(4, 2), (4, 2), (2, 2)]


@pytest.mark.parametrize(
    ("y", "batch_size", "received"),
    [(np.arange(9), 4, r"\[9, 10\], in batches of 4"), (np.arange(10), 0, r"\[10\], in batches of 0")],
)
def test_arrays_of_other_lengths_are_refused(y: np.ndarray, batch_size: int, received: str) -> None:
    with pytest.raises(Unsupported, match=received):
        LeasedDataset(np.arange(10), y, batch_size)


def test_a_worker_that_adds_up_gradients_asks_for_leases_that_end_with_a_push() -> None:
    """The number of batches of a push is known once there was one, and what is used or leased meanwhile counts."""
    asked: list[tuple[int, int]] = []

    class Asked(Worker):
        def lease(self, ahead: bool = False, to_push: int = 0, per_push: int = 0) -> pb.Task:
            asked.append((to_push, per_push))
            return self._ledger.next()

        def report_use(self, lease: int, stop: int) -> None:
            """Expect reports of batches without a push."""

    leases = Leases(Asked(Ledger(20, 2)), batch_samples=2, is_unknown=True)  # type: ignore[arg-type]
    for number in range(1, 11):
        span = leases.next_lease()
        assert span is not None
        if number % 4 == 0:
            assert leases.apply(span)
        leases.used(span)
        assert leases.unpushed == number % 4
    assert asked[0] == (1, 0)
    known = [each for each in asked if each[1]]
    assert known and all(each == 4 and 1 <= first <= 4 for first, each in known)
    assert Leases(Asked(Ledger(4, 2)), 2, batches_per_push=3)._batches_to_push() == (3, 3)  # type: ignore[arg-type]
    assert Leases(Asked(Ledger(4, 2)), 2)._batches_to_push() == (0, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("batches", "unpushed", "per_push", "warns"),
    [(64, 8, 4, True), (66, 2, 4, False), (9, 0, 4, False), (9, 3, 1, False)],
)
def test_gradients_that_several_workers_leave_unpushed_are_stated(
    batches: int, unpushed: int, per_push: int, warns: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    warn_of_unpushed(batches, unpushed, per_push)
    assert ("are not part of an update" in capsys.readouterr().err) == warns
    warn_of_unpushed(batches - 2, unpushed, per_push, earlier=2)
    assert ("are not part of an update" in capsys.readouterr().err) == warns
