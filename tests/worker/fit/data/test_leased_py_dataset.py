"""A `PyDataset` whose batches are leased: each batch of an epoch once over all workers, however they are made."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

from downpour.protos.errors import Unsupported
from downpour.worker.fit.cluster.leases import Leases, Span
from downpour.worker.fit.data.leased_batches import LeasedSamples
from downpour.worker.fit.data.leased_dataset import LeasedDataset
from downpour.worker.fit.data.leased_py_dataset import LeasedPyDataset, is_finite
from downpour.worker.fit.fit import _leased_data
from tests.support.pure.leases import Ledger, Worker

BATCHES = 23


def dataset(**options: Any) -> Any:
    """Return a dataset whose batch holds its own number, and which counts the calls of its hooks."""

    class Batches(keras.utils.PyDataset):
        def __init__(self) -> None:
            super().__init__(**options)
            self.count: int | None = BATCHES
            self.hooks: list[str] = []

        @property
        def num_batches(self) -> int | None:
            return self.count

        def __getitem__(self, index: int) -> Any:
            return np.full((4, 2), index, np.float32), np.zeros(4, np.int64)

        def on_epoch_begin(self) -> None:
            self.hooks.append("begin")

        def on_epoch_end(self) -> None:
            self.hooks.append("end")

    return Batches()


def trained_on(whole: Any, worker: Any, steps: int | None, class_weight: Any = None) -> list[Any]:
    """Return what one worker trains on in an epoch, pushing every batch."""
    leases = Leases(worker)
    given = {"x": whole, "steps_per_epoch": steps, "shuffle": True, "class_weight": class_weight}
    batches = LeasedPyDataset.of_fit(given, (worker.seed, 1), _AsItIs()).batches(leases)
    found = []
    for values, batch in batches:
        span = Span(*values.numpy().tolist())
        assert span.stop == span.start + 1 and leases.valid(span)
        leases.pushed(span)
        found.append(batch)
    return found


class _AsItIs:
    """The random state of the process."""

    def drawing(self) -> Any:
        from contextlib import nullcontext

        return nullcontext()

    def iterate(self, batches: Any) -> Any:
        return batches


@pytest.mark.parametrize(
    "options",
    [{}, {"workers": 3, "max_queue_size": 2}, {"workers": 2, "use_multiprocessing": True, "max_queue_size": 4}],
    ids=["sequential", "threads", "processes"],
)
def test_each_batch_of_an_epoch_is_made_once_over_all_workers(options: dict[str, Any]) -> None:
    ledger = Ledger(BATCHES, 2)
    with ThreadPoolExecutor(3) as pool:
        wholes = [dataset(**options) for _ in range(3)]
        parts = list(pool.map(lambda whole: trained_on(whole, Worker(ledger), None), wholes))
    numbers = [int(x[0, 0]) for part in parts for x, _ in part]
    assert sorted(numbers) == list(range(BATCHES))
    assert all(whole.hooks == ["begin", "end"] for whole in wholes)


def test_the_order_is_drawn_for_each_epoch_and_class_weights_are_weights_of_samples() -> None:
    whole = dataset()
    leased = LeasedPyDataset.of_fit(
        {"x": whole, "steps_per_epoch": None, "shuffle": True, "class_weight": None}, (3, 1), _AsItIs()
    )
    orders = [leased.samples.order(number).tolist() for number in range(2)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(BATCHES)) and orders[0] != orders[1]
    batches = trained_on(dataset(), Worker(Ledger(BATCHES, 4)), None, class_weight={0: 2.5})
    assert all(np.asarray(weights).tolist() == [2.5] * 4 for _, _, weights in batches)


def test_a_worker_that_comes_late_calls_the_hooks_of_the_epochs_that_are_over() -> None:
    whole, worker = dataset(), Worker(Ledger(BATCHES, 4))
    worker.epoch = 2
    trained_on(whole, worker, None)
    assert whole.hooks == ["begin", "end"] * 3


def test_a_dataset_without_end_is_not_leased_and_one_that_changes_its_length_is_refused() -> None:
    whole = dataset()
    assert is_finite(whole) and not is_finite(np.zeros(3))
    batches = LeasedPyDataset(whole, LeasedSamples(BATCHES, 1))
    whole.count = BATCHES + 1
    worker: Any = Worker(Ledger(BATCHES, 4))
    with pytest.raises(Unsupported, match="must keep its number of batches"):
        next(batches._epoch(Leases(worker)))
    whole.count = None
    assert not is_finite(whole)


@pytest.mark.parametrize(
    ("argument", "value", "words"),
    [
        ("y", np.zeros(4), "`y` should not be passed"),
        ("sample_weight", np.ones(4), "`sample_weight` should not be passed"),
        ("validation_split", 0.2, "validation_split must be used with arrays"),
    ],
)
@pytest.mark.parametrize("kind", [keras.utils.PyDataset, LeasedDataset])
def test_arguments_that_a_dataset_contains_itself_are_refused(
    argument: str, value: Any, words: str, kind: type
) -> None:
    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            return np.zeros((2, 3)), np.zeros(2)

    data = Batches() if kind is keras.utils.PyDataset else LeasedDataset(np.zeros((8, 3)), np.zeros(8))
    names = ("y", "sample_weight", "class_weight", "validation_data", "steps_per_epoch", "batch_size")
    given = {"x": data, **dict.fromkeys(names), "validation_split": 0.0, "shuffle": True, argument: value}
    member: Any = SimpleNamespace(seed=1, stages=0, size=2)
    randomness: Any = None
    with pytest.raises((ValueError, Unsupported), match=words):
        _leased_data(given, member, randomness)
