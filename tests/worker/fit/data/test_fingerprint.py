"""Fingerprints of the data of `fit`: equal for equal data, different for another content, order, shape or dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from downpour.worker.fit.data import fingerprint
from downpour.worker.fit.data.fingerprint import fingerprints_of
from downpour.worker.fit.data.leased_dataset import LeasedDataset

X = np.arange(60, dtype=np.float32).reshape(20, 3)


def changed() -> np.ndarray:
    other = X.copy()
    other[7, 1] += 1
    return other


OTHERS = {"content": changed(), "order": X[::-1], "shape": X.reshape(30, 2), "dtype": X.astype(np.float64)}


@pytest.mark.parametrize("change", OTHERS)
def test_other_content_order_shape_or_dtype_has_another_fingerprint(change: str) -> None:
    assert fingerprints_of({"x": X}) == fingerprints_of({"x": X.copy()})
    assert fingerprints_of({"x": X}) != fingerprints_of({"x": OTHERS[change]})


def test_the_rows_of_a_long_array_are_sampled_from_the_first_to_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "FULL_BYTES", 100)
    first, last = X.copy(), X.copy()
    first[0, 0], last[-1, -1] = -1, -1
    found = [fingerprints_of({"x": array})["x"] for array in (X, first, last, X[::-1])]
    assert len(set(found)) == 4
    assert found[0] == fingerprints_of({"x": X.copy()})["x"]


def test_the_cost_of_a_long_array_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "FULL_BYTES", 1000)
    read: list[int] = []

    class OnDisk:
        shape, dtype = (10_000, 10), np.dtype(np.float32)

        def __getitem__(self, rows: slice) -> np.ndarray:
            read.append(rows.stop - rows.start)
            return np.zeros((rows.stop - rows.start, 10), np.float32)

    fingerprints_of({"x": OnDisk()})
    assert 0 < sum(read) * 40 <= 1000


def of_dataset(x: np.ndarray) -> Any:
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((x, x[:, 0])).shuffle(20, seed=1).map(lambda a, b: (a + 1, b))
    return tf.data.Dataset.zip((data, tf.data.Dataset.range(20))).batch(4).prefetch(1)


def of_generator(x: np.ndarray) -> Any:
    def batches() -> Iterator[Any]:
        while True:
            yield x[np.random.default_rng().integers(0, len(x), 4)]

    return batches()


def of_py_dataset(x: np.ndarray) -> Any:
    import keras

    class Batches(keras.utils.PyDataset):
        def __init__(self, x: np.ndarray) -> None:
            super().__init__()
            self.parts = {"inputs": [x]}

    return Batches(x)


def of_ragged(x: np.ndarray) -> Any:
    import tensorflow as tf

    return tf.RaggedTensor.from_row_lengths(x.ravel(), [20, 40])


KINDS: dict[str, Callable[[np.ndarray], Any]] = {
    "dict": lambda x: {"a": [x, None]},
    "strings": lambda x: x.astype(str).astype(object),
    "dataset": of_dataset,
    "generator": of_generator,
    "PyDataset": of_py_dataset,
    "LeasedDataset": lambda x: LeasedDataset(x, x[:, 0]),
    "ragged": of_ragged,
}


@pytest.mark.parametrize("kind", KINDS)
def test_data_of_every_kind_are_told_apart(kind: str) -> None:
    make = KINDS[kind]
    assert fingerprints_of({"x": make(X)}) == fingerprints_of({"x": make(X.copy())}) != {}
    assert fingerprints_of({"x": make(X)}) != fingerprints_of({"x": make(changed())})


def test_a_generator_that_has_begun_is_not_read() -> None:
    batches = of_generator(X)
    next(batches)
    assert fingerprints_of({"x": batches}) == {}


def test_class_weights_in_another_order_of_classes_differ() -> None:
    assert fingerprints_of({"class_weight": {0: 1.0, 1: 2.0}}) != fingerprints_of({"class_weight": {0: 2.0, 1: 1.0}})


def test_a_fingerprint_names_the_place_in_its_argument() -> None:
    assert list(fingerprints_of({"x": {"a": X, "b": [X]}, "y": None})) == ["x['a']", "x['b'][0]"]


def test_a_file_has_the_name_that_the_script_gave_it_wherever_the_worker_has_it() -> None:
    own, given = tf.data.TFRecordDataset(["/private/a", "b"]), tf.data.TFRecordDataset(["a", "b"])
    places = {"/private/a": "a"}
    assert fingerprints_of({"x": own}, lambda path: places.get(path, path)) == fingerprints_of({"x": given})
    assert fingerprints_of({"x": own}) != fingerprints_of({"x": given})
