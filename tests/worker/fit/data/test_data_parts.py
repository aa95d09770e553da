"""Parts of what a script gives to `fit`: together they are the whole, and no two overlap."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from downpour.protos.errors import Unsupported
from downpour.worker.fit.data.data_parts import number_of_rows, part_of, peek, steps_of, validation_split

SIZES = st.integers(1, 8)


@pytest.fixture(scope="module")
def keras() -> Any:
    import keras

    return keras


@given(size=SIZES, more=st.integers(0, 50), seed=st.integers(0, 2**31))
def test_rows_are_divided_without_a_rest(size: int, more: int, seed: int) -> None:
    x = {"a": np.arange(size + more), "b": [np.arange(2 * (size + more)).reshape(-1, 2), None]}
    parts = [part_of(x, rank, size, seed) for rank in range(size)]
    counts = [len(part["a"]) for part in parts]
    assert max(counts) - min(counts) <= 1
    assert sorted(np.concatenate([part["a"] for part in parts])) == x["a"].tolist()  # type: ignore[attr-defined]
    for part in parts:
        assert (np.diff(part["a"]) > 0).all()
        np.testing.assert_array_equal(part["b"][0][:, 0], 2 * part["a"])
        assert part["b"][1] is None


@given(steps=st.integers(1, 1000), size=SIZES)
def test_steps_of_an_epoch_are_divided_without_a_rest(steps: int, size: int) -> None:
    if steps < size:
        with pytest.raises(Unsupported, match=f"steps_per_epoch for each of {size} workers. Received: {steps}"):
            steps_of(steps, 0, size)
        return
    parts = [steps_of(steps, rank, size) for rank in range(size)]
    assert all(part is not None and abs(part - steps / size) < 1 for part in parts)
    assert sum(part or 0 for part in parts) == steps


@pytest.mark.parametrize("kind", ["dense", "sparse", "ragged", "missing"])
def test_the_rows_of_a_batch_are_counted_whatever_its_kind(kind: str) -> None:
    import tensorflow as tf

    dense = np.eye(5, 3)
    batch = {
        "dense": {"a": dense},
        "sparse": (tf.sparse.from_dense(dense), dense[:, 0]),
        "ragged": (tf.RaggedTensor.from_row_lengths([1, 2, 3], [0, 1, 2, 0, 0]), None),
        "missing": ({"a": None, "b": dense}, dense),
    }[kind]
    assert int(number_of_rows(batch)) == 5


def test_steps_that_are_not_given_are_not_divided() -> None:
    assert steps_of(None, 1, 2) is None


def test_batches_of_a_dataset_are_divided() -> None:
    import tensorflow as tf

    dataset = tf.data.Dataset.range(50).batch(4)
    parts = [[batch.tolist() for batch in part_of(dataset, rank, 3).as_numpy_iterator()] for rank in range(3)]
    assert [len(part) for part in parts] == [5, 4, 4]
    assert sorted(sum(sum(parts, []), [])) == list(range(50))
    endless = dataset.repeat()
    assert next(iter(part_of(endless, 2, 3))).numpy().tolist() == [8, 9, 10, 11]


def test_a_dataset_is_divided_in_order_whatever_its_options() -> None:
    import tensorflow as tf

    options = tf.data.Options()
    options.deterministic = False
    part = part_of(tf.data.Dataset.range(8).batch(2).with_options(options), 1, 2)
    assert part.options().deterministic is True
    assert [batch.tolist() for batch in part.as_numpy_iterator()] == [[2, 3], [6, 7]]


def test_batches_of_a_py_dataset_are_divided(keras: Any) -> None:
    class Batches(keras.utils.PyDataset):
        begun = ended = 0

        def __init__(self, count: int | None) -> None:
            super().__init__()
            self.count = count

        @property
        def num_batches(self) -> int | None:
            return self.count

        def __getitem__(self, index: int) -> int:
            return index

        def on_epoch_begin(self) -> None:
            self.begun += 1

        def on_epoch_end(self) -> None:
            self.ended += 1

    whole = Batches(11)
    parts = [part_of(whole, rank, 3) for rank in range(3)]
    assert [part.num_batches for part in parts] == [4, 4, 3]
    assert sorted(part[index] for part in parts for index in range(part.num_batches)) == list(range(11))
    parts[0].on_epoch_begin()
    parts[0].on_epoch_end()
    assert (whole.begun, whole.ended) == (1, 1)
    assert part_of(Batches(None), 1, 3).num_batches is None
    with pytest.raises(Unsupported, match="batches for each of 3 workers. Received: 2"):
        part_of(Batches(2), 0, 3)


def test_batches_of_a_generator_are_divided() -> None:
    parts = [list(part_of(iter(range(11)), rank, 3)) for rank in range(3)]
    assert parts == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8]]


@pytest.mark.parametrize("whole", [np.arange(5), iter([1]), None])
def test_a_single_worker_gets_all_data(whole: Any) -> None:
    assert part_of(whole, 0, 1) is whole


def test_data_that_cannot_be_divided_are_refused() -> None:
    import tensorflow as tf

    with pytest.raises(Unsupported, match="samples for each of 4 workers. Received: 3. Use fewer workers"):
        part_of(np.arange(3), 0, 4)
    with pytest.raises(Unsupported, match="data for fit must be arrays.*Received: float"):
        part_of([1.0, 2.0], 0, 2)
    with pytest.raises(Unsupported, match="Received: str"):
        part_of("x.csv", 0, 2)
    with pytest.raises(Unsupported, match="batches for each of 4 workers. Received: 2"):
        part_of(tf.data.Dataset.range(2), 0, 4)


def test_peeking_takes_nothing_away() -> None:
    import tensorflow as tf

    first, whole = peek(iter(range(3)))
    assert first == 0 and list(whole) == [0, 1, 2]
    dataset = tf.data.Dataset.range(3)
    first, same = peek(dataset)
    assert int(first) == 0 and same is dataset
    x, y = np.arange(9), np.arange(9) + 1
    (inputs, targets), same = peek(x, y)
    assert inputs.tolist() == [0, 1] and targets.tolist() == [1, 2] and same is x


@pytest.mark.parametrize("fraction", [0.1, 0.25, 1 / 3])
def test_the_validation_data_are_those_of_keras(keras: Any, fraction: float) -> None:
    from keras.src.trainers.data_adapters.array_slicing import train_validation_split

    x, y, weight = np.arange(101), np.arange(101) + 1, np.arange(101) / 128
    expected_train, expected_held = train_validation_split((x, y, weight), fraction)
    train, held = validation_split(x, y, weight, fraction)
    for ours, theirs in zip((*train, *held), (*expected_train, *expected_held), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(validation_split(x, y, None, fraction)[1]) == 2


def test_a_validation_split_without_arrays_is_refused() -> None:
    import tensorflow as tf

    for data in (tf.data.Dataset.range(4), iter(range(4))):
        with pytest.raises(Unsupported, match="validation_split must be used with arrays"):
            validation_split(data, None, None, 0.5)
    with pytest.raises(Unsupported, match="samples on both sides. Received: 0.9 of 4"):
        validation_split(np.arange(4), None, None, 0.9)


def test_batches_of_a_generator_that_shuffles_are_divided_without_a_rest(keras: Any) -> None:
    from downpour.worker.fit.process.randomness import DataRandomness

    def shuffled() -> Any:
        for _ in range(3):
            yield from np.random.permutation(12).reshape(6, 2)

    seen = []
    for rank in range(2):
        keras.utils.set_random_seed(1)
        randomness = DataRandomness()
        np.random.seed(rank)  # what else a worker draws
        for batch in part_of(shuffled(), rank, 2, randomness=randomness):
            np.random.rand(rank)
            seen.append(batch)
    assert sorted(np.concatenate(seen)) == sorted(3 * list(range(12)))


def test_a_dataset_shuffles_alike_and_makes_batches_of_its_own(keras: Any) -> None:
    from downpour.worker.fit.process.randomness import DataRandomness

    class Shuffled(keras.utils.PyDataset):
        def __init__(self) -> None:
            super().__init__()
            self.order = np.arange(8)

        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            return self.order[2 * index : 2 * index + 2], np.random.rand()

        def on_epoch_end(self) -> None:
            np.random.shuffle(self.order)

    seen: dict[int, list[int]] = {epoch: [] for epoch in range(3)}
    noise = set()
    for rank in range(2):
        keras.utils.set_random_seed(1)
        part = part_of(Shuffled(), rank, 2, randomness=DataRandomness())
        np.random.seed(10 + rank)
        for epoch in seen:
            part.on_epoch_begin()
            for index in range(part.num_batches):
                rows, drawn = part[index]
                seen[epoch].extend(rows.tolist())
                noise.add(drawn)
            part.on_epoch_end()
            np.random.rand(rank)  # as the callbacks of worker 0 do
    assert all(sorted(rows) == list(range(8)) for rows in seen.values())
    assert len(noise) == 12


@given(size=st.integers(1, 4), count=st.integers(4, 30), seed=st.integers(0, 99))
def test_rows_of_a_sparse_tensor_are_divided_like_those_of_an_array(size: int, count: int, seed: int) -> None:
    import tensorflow as tf

    draws = np.random.default_rng(seed)
    dense = draws.random((count, 3)) * (draws.random((count, 3)) < 0.3)
    for rank in range(size):
        part = part_of(tf.sparse.from_dense(dense), rank, size, seed)
        expected = part_of(dense, rank, size, seed)
        if size == 1:
            part = tf.sparse.reorder(part)
        np.testing.assert_array_equal(tf.sparse.to_dense(part), expected)
