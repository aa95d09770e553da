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
from downpour.protos.errors import Unsupported
from downpour.ps.coordinator.ledger import EpochLedger
from downpour.worker import script
from downpour.worker.fit.cluster import leases as leases_module
from downpour.worker.fit.cluster.leases import Leases, Span
from downpour.worker.fit.data.leased_dataset import LEASES_PER_WORKER, LeasedDataset, span_and_batch

WAIT_S = 30.0


class Ledger:
    """Leases of one epoch after the other; an epoch ends when a worker asks and none is left."""

    def __init__(self, samples: int, lease_samples: int) -> None:
        self.samples, self.lease_samples, self.epoch, self.at, self.lease = samples, lease_samples, 0, 0, 0
        self._lock = threading.Lock()

    def next(self) -> pb.Task:
        with self._lock:
            if self.at >= self.samples:
                return pb.Task(kind=pb.END)
            start, self.at = self.at, min(self.at + self.lease_samples, self.samples)
            self.lease += 1
            return pb.Task(kind=pb.TRAIN, lease=self.lease, epoch=self.epoch, start=start, stop=self.at)

    def begin_epoch(self, epoch: int) -> None:
        self.epoch, self.at = epoch, 0


class Worker:
    """As much of a script's worker as a dataset asks for."""

    def __init__(self, ledger: Ledger, seed: int = 3) -> None:
        self.seed, self.draining = seed, False
        self._ledger = ledger

    def lease(self) -> pb.Task:
        return self._ledger.next()


class Training:
    """A worker that trains on leased samples; each iteration is one epoch."""

    def __init__(self, dataset: LeasedDataset, worker: Any) -> None:
        self._leases = Leases(worker)
        self._batches = dataset.leased_batches(worker, self._leases)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Every batch is pushed with the span that it comes from."""
        for element in self._batches:
            values, batch = span_and_batch(element)
            span = Span(*values.numpy().tolist())
            if self._leases.valid(span):
                yield span, batch
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
@given(samples=st.integers(1, 60), batch_size=st.integers(1, 16), lease_samples=st.integers(1, 25))
def test_a_worker_trains_on_the_samples_of_its_leases(samples: int, batch_size: int, lease_samples: int) -> None:
    x = np.arange(samples)
    dataset, ledger = LeasedDataset(x, 2 * x, batch_size), Ledger(samples, lease_samples)
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
    ledger = Ledger(100, 6)

    def train(dataset: LeasedDataset) -> list[int]:
        worker: Any = Worker(ledger)
        return [sample for _, (inputs,) in Training(dataset, worker) for sample in inputs.numpy()]

    with ThreadPoolExecutor(3) as pool:
        parts = list(pool.map(train, (LeasedDataset(np.arange(100), batch_size=4) for _ in range(3))))
    assert sorted(sum(parts, [])) == list(range(100))


def test_no_lease_is_requested_before_the_last_one_is_pushed() -> None:
    leases = Leases(Worker(Ledger(4, 2)))  # type: ignore[arg-type]
    lease = leases.next_lease()
    assert lease is not None and leases.add(lease)
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(leases.next_lease)
        assert leases.valid(lease)
        assert not following.done()  # in flight: its outcome is not known
        leases.pushed(lease)
        after = following.result(WAIT_S)
    assert after is not None and (after.start, after.stop) == (2, 4)


def test_a_batch_that_is_never_pushed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases_module, "LONGEST_WAIT_S", 0.01)
    leases = Leases(Worker(Ledger(4, 2)))  # type: ignore[arg-type]
    lease = leases.next_lease()
    assert lease is not None and leases.add(lease)
    with pytest.raises(Unsupported, match="every batch of a LeasedDataset must be pushed"):
        leases.next_lease()


def test_batches_of_a_lost_session_are_not_pushed() -> None:
    leases = Leases(Worker(Ledger(4, 2)))  # type: ignore[arg-type]
    lease = leases.next_lease()
    assert lease is not None and leases.add(lease)
    leases.clear()
    assert not leases.valid(lease) and not leases.add(lease)
    following = leases.next_lease()  # without waiting
    assert following is not None and leases.add(following) and leases.valid(following)


@settings(max_examples=20)
@given(lost=st.lists(st.integers(1, 10), max_size=4), lease_samples=st.integers(1, 12))
def test_every_sample_is_pushed_once_however_often_the_session_is_lost(lost: list[int], lease_samples: int) -> None:
    """After a lost session the servers lease what was not pushed again; the worker has read some of it already."""
    ledger = EpochLedger(0, 40, lease_samples)

    class Rejoining:
        draining, seed = False, 1

        def lease(self) -> pb.Task:
            lease = ledger.lease(0)
            if lease is None:
                return pb.Task(kind=pb.END)
            return pb.Task(kind=pb.TRAIN, lease=lease.number, start=lease.start, stop=lease.stop)

    leases, pushed = Leases(Rejoining()), list[int]()  # type: ignore[arg-type]
    dataset, losses = LeasedDataset(np.arange(40), batch_size=2), list(lost)
    elements = iter(dataset.leased_batches(Rejoining(), leases))  # type: ignore[arg-type]
    batches = 0
    for element in elements:
        values, (inputs,) = span_and_batch(element)
        span, batches = Span(*values.numpy().tolist()), batches + 1
        if losses and batches >= losses[0]:
            batches = 0 * losses.pop(0)
            leases.clear()
            ledger.take_back(0)
        if not leases.valid(span):
            continue
        ledger.check(span.lease, 0, 0, span.start, span.stop)
        ledger.use(span.lease, span.stop)
        pushed += inputs.numpy().tolist()
        leases.pushed(span)
    assert sorted(pushed) == list(range(40))


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
def test_an_epoch_has_enough_leases_for_all_workers(
    samples: int, batch_size: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sized:
        size, lease_batches = workers, 0

    monkeypatch.setattr(script, "member", Sized())
    lease = LeasedDataset(np.arange(samples), batch_size=batch_size).lease_samples(samples)
    assert lease % batch_size == 0 and lease >= batch_size
    assert lease == batch_size or samples / lease >= LEASES_PER_WORKER * workers


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
    worker: Any = Worker(Ledger(10, 5))
    shapes = [inputs["b"].shape for _, (inputs, _) in Training(dataset, worker)]
    assert shapes == [(4, 2), (1, 2), (4, 2), (1, 2)]


@pytest.mark.parametrize(
    ("y", "batch_size", "received"),
    [(np.arange(9), 4, r"\[9, 10\], in batches of 4"), (np.arange(10), 0, r"\[10\], in batches of 0")],
)
def test_arrays_of_other_lengths_are_refused(y: np.ndarray, batch_size: int, received: str) -> None:
    with pytest.raises(Unsupported, match=received):
        LeasedDataset(np.arange(10), y, batch_size)
