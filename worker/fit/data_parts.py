"""Each worker's own part of what a script gives to `fit`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from downpour.protos.errors import Unsupported


def part_of(data: Any, rank: int, size: int, seed: int = 0) -> Any:
    """The part of one worker, of the same kind as the whole.

    Arrays are dealt out by sample, at random: every so-manieth of pairs that alternate between right and wrong would
    be of one class alone. Within a part, samples keep their order. Datasets and generators are dealt out by batch.

    Args:
        data: `x` of `fit`, or `y`, or `sample_weight`.
        rank: The worker.
        size: Workers.
        seed: The same for all workers, and for all of these arguments.

    Raises:
        Unsupported: There is less than one sample or batch for each, or it is of another kind.
    """
    if data is None or size == 1:
        return data
    if isinstance(data, tf.data.Dataset):
        _check(int(data.cardinality().numpy()), size, "batches")
        return data.shard(size, rank)
    if isinstance(data, keras.utils.PyDataset):
        return DealtOut(data, rank, size)
    if isinstance(data, Iterator):
        return _dealt_out(data, rank, size)
    return keras.tree.map_structure(lambda array: _rows(array, rank, size, seed), data)


def peek(x: Any, y: Any = None, sample_weight: Any = None) -> tuple[Any, Any]:
    """A small batch of what `fit` is given, as a train step has it, and `x` with nothing taken away."""
    if isinstance(x, tf.data.Dataset):
        return next(iter(x.take(1))), x
    if isinstance(x, keras.utils.PyDataset):
        return x[0], x
    if isinstance(x, Iterator):
        first = next(x)
        return first, _chained(first, x)
    few = keras.tree.map_structure(
        lambda array: None if array is None else _slice(array, slice(0, 2)), (x, y, sample_weight)
    )
    return keras.utils.pack_x_y_sample_weight(*few), x


def steps_of(steps: int | None, rank: int, size: int) -> int | None:
    """A worker's part of `steps_per_epoch`, which counts the steps of all.

    Raises:
        Unsupported: There is less than one for each.
    """
    if steps is None:
        return None
    _check(steps, size, "steps_per_epoch")
    return steps // size + (rank < steps % size)


def validation_split(x: Any, y: Any, weight: Any, fraction: float) -> tuple[tuple[Any, Any, Any], tuple[Any, ...]]:
    """Holds out the last samples of arrays, exactly as `validation_split` of Keras's `fit` does.

    Raises:
        Unsupported: They are no arrays, or none are left on one side.
    """
    arrays = [array for array in keras.tree.flatten((x, y, weight)) if array is not None]
    if not all(hasattr(array, "shape") for array in arrays) or isinstance(x, tf.data.Dataset):
        raise Unsupported(f"validation_split must be of arrays. Received: {type(x).__name__}; use validation_data.")
    count = int(arrays[0].shape[0])
    cut = math.floor(count * (1.0 - fraction))
    if not 0 < cut < count:
        raise Unsupported(f"validation_split must leave samples on both sides. Received: {fraction} of {count}.")
    head = keras.tree.map_structure(lambda a: None if a is None else _slice(a, slice(None, cut)), (x, y, weight))
    tail = keras.tree.map_structure(lambda a: None if a is None else _slice(a, slice(cut, None)), (x, y, weight))
    return head, tail if weight is not None else tail[:2]


class DealtOut(keras.utils.PyDataset):
    """Every so-manieth batch of another PyDataset."""

    def __init__(self, whole: Any, rank: int, size: int) -> None:
        """Of the batches `rank, rank + size, ...`."""
        super().__init__(whole.workers, whole.use_multiprocessing, whole.max_queue_size)
        _check(whole.num_batches, size, "batches")
        self._whole, self._rank, self._size = whole, rank, size

    @property
    def num_batches(self) -> int | None:
        """In an epoch of this worker; None: without end."""
        whole = self._whole.num_batches
        return None if whole is None else len(range(self._rank, whole, self._size))

    def __getitem__(self, index: int) -> Any:
        """One batch."""
        return self._whole[self._rank + index * self._size]

    def on_epoch_begin(self) -> None:
        """Passed on."""
        self._whole.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Passed on."""
        self._whole.on_epoch_end()


def _chained(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _dealt_out(batches: Iterator[Any], rank: int, size: int) -> Iterator[Any]:
    yield from itertools.islice(batches, rank, None, size)


def _rows(array: Any, rank: int, size: int, seed: int) -> Any:
    if array is None:
        return None
    if not hasattr(array, "shape") or isinstance(array, tf.SparseTensor):
        raise Unsupported(
            "data for fit must be arrays, tensors, a keras.utils.PyDataset, a tf.data.Dataset or a generator. "
            f"Received: {type(array).__name__}. Make it one of these."
        )
    count = int(array.shape[0])
    _check(count, size, "samples")
    rows = np.sort(np.random.default_rng(seed).permutation(count)[rank::size])
    if isinstance(array, tf.Tensor | tf.RaggedTensor | tf.Variable):
        return tf.gather(array, rows)
    return array.iloc[rows] if hasattr(array, "iloc") else array[rows]


def _slice(array: Any, rows: slice) -> Any:
    return array.iloc[rows] if hasattr(array, "iloc") else array[rows]


def _check(count: int | None, size: int, what: str) -> None:
    if count is not None and 0 <= count < size:
        raise Unsupported(f"there must be {what} for each of {size} workers; received {count}. Use fewer workers.")
