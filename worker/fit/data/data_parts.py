"""Divides the data of `fit` among the workers."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from downpour.protos.errors import Unsupported


class Drawing(Protocol):
    """The random state in which batches are made on all workers."""

    def drawing(self) -> AbstractContextManager[None]:
        """Return a context in which Python and NumPy draw from this state."""

    def iterate(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Yield batches that are made in this state."""


def part_of(data: Any, rank: int, size: int, seed: int = 0, randomness: Drawing | None = None) -> Any:
    """Return the part of the data that one worker trains on, of the same type as the whole.

    The samples of arrays are assigned at random, because every n-th sample of data in which classes alternate would
    be of one class. Within a part, samples keep their order. Of datasets and generators, worker r receives the batches
    r, r + size, r + 2·size, ...

    Args:
        data: `x` of `fit`, or `y`, or `sample_weight`.
        rank: The rank of the worker.
        size: The number of workers.
        seed: The seed of the assignment, equal on all workers and for `x`, `y` and `sample_weight`.
        randomness: The random state of generators and of the hooks of a `PyDataset`; None for that of the process.

    Raises:
        Unsupported: There are fewer samples or batches than workers.
        Unsupported: The data have a type that cannot be divided.
    """
    if data is None or size == 1:
        return data
    if isinstance(data, tf.data.Dataset):
        _check(int(data.cardinality().numpy()), size, "batches")
        return in_order(data).shard(size, rank)
    if isinstance(data, keras.utils.PyDataset):
        _check(data.num_batches, size, "batches")
        return PyDatasetPart(data, rank, size, randomness)
    if isinstance(data, Iterator):
        return _every_nth(randomness.iterate(data) if randomness else data, rank, size)
    return keras.tree.map_structure(lambda array: _rows(array, rank, size, seed), data)


def in_order(data: tf.data.Dataset) -> tf.data.Dataset:
    """Return a dataset without the option that lets its elements change places, which differ between workers."""
    if data.options().deterministic is not False:
        return data
    options = tf.data.Options()
    options.deterministic = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow warns that the option changes
        return data.with_options(options)


def peek(x: Any, y: Any = None, sample_weight: Any = None) -> tuple[Any, Any]:
    """Return a batch of the data of `fit`, and data equal to `x`.

    Returns:
        The first batch, or the first two samples of arrays, packed as a train step receives it; and `x`, or an iterator
        that yields all of its batches.
    """
    if isinstance(x, tf.data.Dataset):
        return next(iter(x.take(1))), x
    if isinstance(x, keras.utils.PyDataset):
        return x[0], x
    if isinstance(x, Iterator):
        first = next(x)
        return first, _chained(first, x)
    few = keras.tree.map_structure(
        lambda array: None if array is None else rows_of(array, slice(0, 2)), (x, y, sample_weight)
    )
    return keras.utils.pack_x_y_sample_weight(*few), x


def number_of_rows(batch: Any) -> tf.Tensor:
    """Return the number of samples in a batch, an `int64` tensor; its arrays may be sparse, ragged or missing."""
    first = next(array for array in keras.tree.flatten(batch) if array is not None)
    if isinstance(first, tf.RaggedTensor):
        return first.nrows(tf.int64)
    return first.dense_shape[0] if isinstance(first, tf.SparseTensor) else tf.shape(first, tf.int64)[0]


def steps_of(steps: int | None, rank: int, size: int) -> int | None:
    """Return the steps of one worker, if `steps_per_epoch` is the number of steps of all workers.

    Raises:
        Unsupported: There are fewer steps than workers.
    """
    if steps is None:
        return None
    _check(steps, size, "steps_per_epoch")
    return steps // size + (rank < steps % size)


def validation_split(x: Any, y: Any, weight: Any, fraction: float) -> tuple[tuple[Any, Any, Any], tuple[Any, ...]]:
    """Hold out the last samples of arrays, exactly as `validation_split` of Keras's `fit` does.

    Returns:
        The arguments `x`, `y`, `sample_weight` for training, and the `validation_data`.

    Raises:
        Unsupported: The data are not arrays.
        Unsupported: No sample is left to train on, or none to validate on.
    """
    arrays = [array for array in keras.tree.flatten((x, y, weight)) if array is not None]
    if not all(hasattr(array, "shape") for array in arrays) or isinstance(x, tf.data.Dataset):
        raise Unsupported(
            f"validation_split must be used with arrays. Received: {type(x).__name__}. Use validation_data."
        )
    count = int(arrays[0].shape[0])
    cut = math.floor(count * (1.0 - fraction))
    if not 0 < cut < count:
        raise Unsupported(f"validation_split must leave samples on both sides. Received: {fraction} of {count}.")
    head = keras.tree.map_structure(lambda a: None if a is None else rows_of(a, slice(None, cut)), (x, y, weight))
    tail = keras.tree.map_structure(lambda a: None if a is None else rows_of(a, slice(cut, None)), (x, y, weight))
    return head, tail if weight is not None else tail[:2]


class PyDatasetPart(keras.utils.PyDataset):
    """The batches `rank`, `rank + size`, `rank + 2·size`, ... of another PyDataset."""

    def __init__(self, whole: Any, rank: int, size: int, randomness: Drawing | None = None) -> None:
        """Select the batches of one worker.

        Args:
            whole: The dataset of all workers.
            rank: The rank of the worker.
            size: The number of workers.
            randomness: The random state of the hooks, in which a dataset shuffles; None for that of the process.
        """
        super().__init__(whole.workers, whole.use_multiprocessing, whole.max_queue_size)
        self._whole, self._rank, self._size = whole, rank, size
        self._randomness = randomness

    @property
    def num_batches(self) -> int | None:
        """Number of batches in an epoch of this worker; None if the dataset has no end."""
        whole = self._whole.num_batches
        return None if whole is None else len(range(self._rank, whole, self._size))

    def __getitem__(self, index: int) -> Any:
        """Return batch `index` of this worker, which is batch `rank + index * size` of the whole dataset."""
        return self._whole[self._rank + index * self._size]

    def on_epoch_begin(self) -> None:
        """Call the hook of the whole dataset."""
        self._call("on_epoch_begin")

    def on_epoch_end(self) -> None:
        """Call the hook of the whole dataset."""
        self._call("on_epoch_end")

    def _call(self, hook: str) -> None:
        if getattr(type(self._whole), hook) is getattr(keras.utils.PyDataset, hook):
            return  # threads may be making batches, whose draws are this worker's own
        with self._randomness.drawing() if self._randomness else nullcontext():
            getattr(self._whole, hook)()


def _chained(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _every_nth(batches: Iterator[Any], rank: int, size: int) -> Iterator[Any]:
    yield from itertools.islice(batches, rank, None, size)  # Keras accepts generators, not other iterators


def _rows(array: Any, rank: int, size: int, seed: int) -> Any:
    if array is None:
        return None
    if not hasattr(array, "shape"):
        raise Unsupported(
            "data for fit must be arrays, tensors, a keras.utils.PyDataset, a tf.data.Dataset or a generator. "
            f"Received: {type(array).__name__}. Convert it to one of these."
        )
    count = int(array.shape[0])
    _check(count, size, "samples")
    rows = np.sort(np.random.default_rng(seed).permutation(count)[rank::size])
    if isinstance(array, tf.SparseTensor):
        return _rows_of_sparse(array, rows)
    if isinstance(array, tf.Tensor | tf.RaggedTensor | tf.Variable):
        return tf.gather(array, rows)
    array = array.tocsr() if hasattr(array, "tocsr") else array  # SciPy's other formats have no rows
    return array.iloc[rows] if hasattr(array, "iloc") else array[rows]


def _rows_of_sparse(array: tf.SparseTensor, rows: np.ndarray) -> tf.SparseTensor:
    """Return the given rows, which must be sorted, of a sparse tensor."""
    indices = array.indices.numpy()
    places = np.searchsorted(rows, indices[:, 0])
    kept = rows[np.minimum(places, len(rows) - 1)] == indices[:, 0] if len(rows) else np.zeros(len(indices), bool)
    found = indices[kept]
    found[:, 0] = places[kept]
    shape = [len(rows), *array.dense_shape.numpy()[1:]]
    return tf.SparseTensor(found, tf.boolean_mask(array.values, kept), shape)


def rows_of(array: Any, rows: slice) -> Any:
    """Return rows that follow each other of an array, a tensor or a table."""
    if isinstance(array, tf.SparseTensor):
        return _rows_of_sparse(array, np.arange(*rows.indices(int(array.shape[0]))))
    array = array.tocsr() if hasattr(array, "tocsr") else array
    return array.iloc[rows] if hasattr(array, "iloc") else array[rows]


def _check(count: int | None, size: int, what: str) -> None:
    if count is not None and 0 <= count < size:
        raise Unsupported(f"there must be {what} for each of {size} workers. Received: {count}. Use fewer workers.")
