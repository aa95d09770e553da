"""The batches of a `PyDataset` of known length, which the servers lease by their numbers."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Mapping
from contextlib import closing, nullcontext
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.trainers.data_adapters import py_dataset_adapter as keras_adapter

from downpour.protos.errors import Unsupported
from downpour.worker.fit.cluster.leases import Leases, Span
from downpour.worker.fit.data.data_parts import Drawing
from downpour.worker.fit.data.leased_batches import PREFETCHED, LeasedSamples, on_own_threads

PUT_S = 0.2  # between two looks at whether a full queue is still read
END = object()


class LeasedPyDataset:
    """A `PyDataset` whose batches are leased: a position of the epoch's order is one batch.

    Attributes:
        samples: The batches and their order.
    """

    def __init__(
        self, whole: Any, samples: LeasedSamples, class_weight: Any = None, randomness: Drawing | None = None
    ) -> None:
        """Divide the batches of a dataset, none of which is made yet.

        Args:
            whole: The dataset of all workers.
            samples: The batches and their order.
            class_weight: The weights of classes, which become weights of samples.
            randomness: The random state of the hooks, in which a dataset shuffles; None for that of the process.
        """
        self._whole, self.samples, self._randomness = whole, samples, randomness
        self._adapter = keras_adapter.PyDatasetAdapter(whole, class_weight)
        self._epochs = 0  # of which the hooks have been called, or have been begun

    @classmethod
    def of_fit(cls, given: Mapping[str, Any], seed: tuple[int, int], randomness: Drawing) -> LeasedPyDataset:
        """Divide the dataset in the arguments of `fit`.

        Args:
            given: The arguments of `fit`, of which `steps_per_epoch` counts the batches of all workers.
            seed: The seed of the job, and the number of the call of `fit`, from 1.
            randomness: The random state of the hooks.
        """
        whole = given["x"]
        batches = LeasedSamples(whole.num_batches, 1, given["steps_per_epoch"] or 0, bool(given["shuffle"]), seed)
        return cls(whole, batches, given["class_weight"], randomness)

    def batches(self, leases: Leases) -> tf.data.Dataset:
        """Return a dataset of the batches that are leased to this worker; each iteration over it is one epoch.

        Each element is a pair of the span, `int64[6]`, and what a train step receives.
        """
        self._adapter.get_tf_dataset()  # it makes the first batches, whose types it finds out
        span = tf.TensorSpec((len(Span._fields),), tf.int64)
        signature = (span, self._adapter._output_signature)
        data = tf.data.Dataset.from_generator(lambda: self._epoch(leases), output_signature=signature)
        return on_own_threads(data.prefetch(PREFETCHED))

    def _epoch(self, leases: Leases) -> Iterator[tuple[np.ndarray, Any]]:
        """Yield the batches of this worker in an epoch, with their spans, between the hooks of the dataset."""
        for _ in range(self._epochs, leases.epoch):  # a worker that came late has missed the hooks of earlier epochs
            self._call("on_epoch_begin")
            self._call("on_epoch_end")
        self._epochs = leases.epoch + 1
        self._call("on_epoch_begin")
        if self._whole.num_batches != self.samples.samples:
            raise Unsupported(
                f"a PyDataset must keep its number of batches during fit. Received: {self._whole.num_batches}, "
                f"{self.samples.samples} when fit began. Use one call of fit for each length."
            )
        places = _places(self.samples, leases)
        for span, batch in _made_ahead(self._whole, places) if self._adapter.enqueuer else self._made(places):
            yield np.array(span, np.int64), self._adapter._standardize_batch(batch)
        self._call("on_epoch_end")

    def _made(self, places: Iterator[tuple[Span, int]]) -> Iterator[tuple[Span, Any]]:
        for span, number in places:
            yield span, self._whole[number]

    def _call(self, hook: str) -> None:
        if getattr(type(self._whole), hook) is getattr(keras.utils.PyDataset, hook):
            return  # threads may be making batches, whose draws are this worker's own
        with self._randomness.drawing() if self._randomness else nullcontext():
            getattr(self._whole, hook)()


def is_finite(data: Any) -> bool:
    """Return whether data are a `PyDataset` whose number of batches is known."""
    return isinstance(data, keras.utils.PyDataset) and data.num_batches is not None


def _places(samples: LeasedSamples, leases: Leases) -> Iterator[tuple[Span, int]]:
    """Yield the span and the number in the dataset of each batch that is leased to this worker."""
    for span, numbers in samples.rows(leases):
        for at, number in enumerate(numbers.tolist(), start=span.start):
            yield span._replace(start=at, stop=at + 1), number


def _made_ahead(whole: Any, places: Iterator[tuple[Span, int]]) -> Iterator[tuple[Span, Any]]:
    """Yield batches in order, which the threads or processes that the dataset asks for make ahead."""
    enqueuer = _Enqueuer(whole, places)
    enqueuer.start()
    try:
        yield from enqueuer.get()
    finally:
        enqueuer.running = False


class _Enqueuer(keras_adapter.OrderedEnqueuer):
    """Keras's threads or processes, which make the batches of leases instead of all.

    A thread asks for leases: the next one may be granted only when batches of the last one have been trained on.
    """

    def __init__(self, whole: Any, places: Iterator[tuple[Span, int]]) -> None:
        super().__init__(whole, whole.workers, whole.use_multiprocessing, whole.max_queue_size)
        self._places = places

    def _run(self) -> None:
        try:
            self._send_py_dataset()
            with closing(self.executor_fn(keras_adapter._SHARED_SEQUENCES)) as executor:
                for span, number in self._places:
                    made = executor.apply_async(keras_adapter.get_index, (self.uid, number))
                    if not self._put((span, made)):
                        return
                self._put(END)
        except BaseException as error:  # whatever it is: the thread that reads the batches would wait for ever
            self._put(error)

    def _put(self, item: Any) -> bool:
        """Put an item into the queue, and return whether it is still read."""
        while self.running:
            try:
                self.future_queue.put(item, timeout=PUT_S)
                return True
            except queue.Full:
                continue
        return False

    def get(self) -> Iterator[tuple[Span, Any]]:
        """Yield the batches with their spans."""
        while (item := self.future_queue.get()) is not END:
            if isinstance(item, BaseException):
                raise item
            span, made = item
            yield span, made.get()
