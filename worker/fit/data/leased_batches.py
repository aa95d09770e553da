"""The batches of a worker whose samples the servers lease, made from arrays that every worker has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.trainers.data_adapters import array_slicing
from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter, can_convert_arrays

from downpour.ps.core.epoch_order import EpochRange, epoch_range, part_bounds, place_of
from downpour.worker.fit.cluster.leases import Leases, Span

LEASES_PER_WORKER = 16  # in an epoch, at most; small enough that all workers end it at about the same time
PREFETCHED = 2  # batches that are made while the worker trains on another one


@dataclass(frozen=True)
class LeasedSamples:
    """The samples of `fit` whose indices are leased, and their order.

    Attributes:
        samples: The number of samples.
        batch_samples: The number of samples in a batch.
        epoch_batches: The number of batches in an epoch of all workers; 0 for those of all samples.
        shuffle: Whether each pass has an order of its own: of samples, of whole batches ("batch"), or none.
        seed: The seed of the order, equal on all workers: that of the job, and the number of the call of `fit`.
        drawn: The number of samples in an epoch, the first in an order of its own; 0 unless every epoch is drawn anew.
    """

    samples: int
    batch_samples: int
    epoch_batches: int = 0
    shuffle: bool | str = True
    seed: tuple[int, int] = (0, 1)
    drawn: int = 0

    @property
    def epoch_samples(self) -> int:
        """The number of samples in the first epoch, over all workers."""
        used = self.epoch(0)
        return used.stop - used.start

    def epoch(self, number: int) -> EpochRange:
        """Return the samples of an epoch in the order of its pass."""
        if self.drawn:
            return EpochRange(number, 0, self.drawn)
        return epoch_range(self.samples, self.batch_samples, self.epoch_batches, number)

    def lease_samples(self, workers: int, batches: int = 0, push_every: int = 1) -> int:
        """Return the largest number of samples in a lease.

        Args:
            workers: The number of workers.
            batches: The number of batches in a lease; 0 if it follows from the data and the number of workers.
            push_every: The number of batches of a push, of which such a lease holds a whole number.
        """
        chosen = max(1, self.epoch_samples // (self.batch_samples * LEASES_PER_WORKER * workers))
        return self.batch_samples * (batches or -(-chosen // push_every) * push_every)

    def order(self, number: int) -> np.ndarray:
        """Return the order of the samples in a pass, `int64[samples]`.

        Args:
            number: The number of the pass in this call of `fit`, from 0.
        """
        if not self.shuffle:
            return np.arange(self.samples)
        seed, call = self.seed
        generator = np.random.default_rng((seed, number, call - 1))
        if self.shuffle != "batch":
            return generator.permutation(self.samples)
        whole = self.samples // self.batch_samples  # as in Keras, a smaller batch stays the last one
        starts = generator.permutation(whole) * self.batch_samples
        rows = (starts[:, None] + np.arange(self.batch_samples)).ravel()
        return np.concatenate([rows, np.arange(len(rows), self.samples)])

    def rows(self, leases: Leases) -> Iterator[tuple[Span, np.ndarray]]:
        """Yield each lease of an epoch with the indices of its samples, in order."""
        number, order = -1, np.empty(0, np.int64)
        while (lease := leases.next_lease()) is not None:
            used = self.epoch(lease.epoch)
            if used.number != number:
                number, order = used.number, self.order(used.number)
            yield lease, order[used.start : used.stop][self._places(lease, used.stop - used.start)]

    def _places(self, lease: Span, epoch_samples: int) -> Any:
        """Return the places of a lease's positions in the order of the epoch."""
        if lease.parts == 1:
            return slice(lease.start, lease.stop)
        bounds = part_bounds(epoch_samples, self.batch_samples, lease.parts)
        starts = range(lease.start, lease.stop, self.batch_samples)
        batches = [
            place_of(start, self.batch_samples, bounds) + np.arange(min(self.batch_samples, lease.stop - start))
            for start in starts
        ]
        return np.concatenate(batches)


class LeasedArrays:
    """Arrays of `fit`, as Keras takes them, whose batches are made within TensorFlow's graph.

    Attributes:
        samples: The samples and their order.
    """

    def __init__(self, inputs: Any, samples: LeasedSamples) -> None:
        """Build the batches of arrays, which are not copied yet.

        Args:
            inputs: Arrays of one length, or a structure of them that holds what a train step receives.
            samples: The samples and their order.
        """
        self._inputs, self.samples = inputs, samples

    @classmethod
    def of_fit(cls, given: Mapping[str, Any], seed: tuple[int, int]) -> LeasedArrays:
        """Check and pack arguments of `fit` as Keras does, with a weight for each sample where classes have weights.

        Args:
            given: The arguments of `fit`, of which `steps_per_epoch` counts the batches of all workers.
            seed: The seed of the job, and the number of the call of `fit`, from 1.

        Raises:
            ValueError: Keras does not accept the arrays.
        """
        steps = given["steps_per_epoch"]
        adapter = ArrayDataAdapter(
            given["x"], given["y"], given["sample_weight"], given["batch_size"], steps,
            class_weight=given["class_weight"],
        )  # fmt: skip
        samples = LeasedSamples(adapter._num_samples, adapter.batch_size, steps or 0, given["shuffle"], seed)
        return cls(adapter._inputs, samples)

    def batches(self, leases: Leases) -> tf.data.Dataset:
        """Return a dataset of the batches that are leased to this worker; each iteration over it is one epoch.

        Each element is a pair of the span, `int64[6]`, and what a train step receives.
        """
        inputs = keras.tree.lists_to_tuples(array_slicing.convert_to_sliceable(self._inputs, "tensorflow"))
        indices = _indices(lambda: self.samples.rows(leases), self.samples)
        data = tf.data.Dataset.zip((indices, tf.data.Dataset.from_tensors(inputs).repeat()))
        even = self.samples.samples % self.samples.batch_samples == 0
        return on_own_threads(data.map(partial(_batch, even)).prefetch(PREFETCHED))


def _indices(leases: Callable[[], Iterator[tuple[Span, np.ndarray]]], samples: LeasedSamples) -> tf.data.Dataset:
    """Return a dataset of the span `int64[6]` and the indices `int64[k]` of each batch, with zeros after them."""
    size = samples.batch_samples

    def elements() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for span, rows in leases():
            yield _spans(span, size), np.pad(rows, (0, -len(rows) % size)).reshape(-1, size)

    signature = (tf.TensorSpec((None, len(Span._fields)), tf.int64), tf.TensorSpec((None, size), tf.int64))
    of_leases = tf.data.Dataset.from_generator(elements, output_signature=signature)
    # A lease is divided in one call: functions of TensorFlow for each batch take longer than a small model's step.
    return of_leases.flat_map(lambda *of_lease: tf.data.Dataset.from_tensor_slices(of_lease))


def _spans(lease: Span, batch_samples: int) -> np.ndarray:
    """Return the spans of the batches of a lease, `int64[k, 6]`."""
    starts = range(lease.start, lease.stop, batch_samples)
    return np.array([lease._replace(start=at, stop=min(at + batch_samples, lease.stop)) for at in starts], np.int64)


def _batch(even: bool, of_batch: Any, inputs: Any) -> Any:
    """Return the span and the rows of the inputs that make a batch.

    Args:
        even: Whether all batches have the same size.
        of_batch: The span, and the indices with zeros after them.
        inputs: All rows.
    """
    span, rows = of_batch
    if not even:
        rows = rows[: span[3] - span[2]]

    def take(array: Any) -> Any:
        if isinstance(array, array_slicing.TensorflowSparseWrapper):
            return array_slicing.slice_tensorflow_sparse_wrapper(array, rows)
        if isinstance(array, list | tuple | dict):
            return None
        return tf.gather(array, rows, axis=0) if tf.is_tensor(array) else array

    return span, keras.tree.traverse(take, inputs)


def on_own_threads(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Return a dataset that is made on threads of its own, since it waits for leases; the others are few."""
    options = tf.data.Options()
    options.threading.private_threadpool_size = 2
    options.experimental_optimization.apply_default_optimizations = False
    options.experimental_external_state_policy = tf.data.experimental.ExternalStatePolicy.IGNORE
    return dataset.with_options(options)


def is_array_data(x: Any, y: Any, sample_weight: Any) -> bool:
    """Return whether these arguments of `fit` are arrays for Keras, whose samples can be leased by index."""
    return bool(can_convert_arrays((x, y, sample_weight)))
