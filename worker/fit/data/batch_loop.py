"""A train function that trains on several batches in one call of TensorFlow, so that Keras's Python code runs once.

Keras's own train function returns to Python after every batch, where its loop and its list of callbacks take longer
than the train step of a small model. Unlike `steps_per_execution`, this one ends a call after a duration, does not read
a batch ahead of the next call, and makes a single step if the caller asks for it, with the same traced function.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.tensorflow.trainer import reduce_per_replica

CALL_S = 0.05  # after which a call ends: a job drains, and a progress bar is redrawn, as often
MOST_BATCHES = 1000  # in a call, also if the clock is set back


class BatchLoop:
    """The train function of a model, for Keras's loop, which counts on with `following` what a call has trained on.

    Attributes:
        single: Whether the next call trains on one batch.
        remaining: The number of batches until the end of the epoch; None if the data end it.
        ahead: The number of batches after the first one that the last call has trained on.
    """

    def __init__(self, model: keras.Model, goes_on: Callable[[], bool] | None = None) -> None:
        """Build a function that is traced at its first call.

        Args:
            model: A compiled model, whose train step is the attribute `train_step` now.
            goes_on: A function that is called after every batch and returns whether to train on the next one in the
                same call; None to continue.
        """
        self.single, self.ahead = False, 0
        self.remaining: int | None = None
        self._model, self._goes_on = model, goes_on
        self._iterator: Any = None  # of the last call
        self._step = model.train_step
        self._one = tf.function(
            tf.autograph.experimental.do_not_convert(self._one_batch), reduce_retracing=True,
            jit_compile=model.jit_compile,
        )  # fmt: skip
        self._several = tf.function(
            tf.autograph.experimental.do_not_convert(self._several_batches), reduce_retracing=True
        )

    @staticmethod
    def serves(model: keras.Model) -> bool:
        """Return whether a model has Keras's own train function with one step in a call, which this one may replace."""
        names = ("make_train_function", "_make_function")
        own = any(name in vars(model) or getattr(type(model), name) is not getattr(keras.Model, name) for name in names)
        return not own and not model.run_eagerly and model.steps_per_execution == 1

    def __call__(self, iterator: Any) -> Any:
        """Train on the next batches of an iterator of a dataset, and return the logs of the last one.

        Raises:
            tf.errors.OutOfRangeError: The data have ended.
        """
        self.ahead = 0
        if not isinstance(iterator, tf.data.Iterator):  # `train_on_batch`, in a callback
            return self._one(_without_optionals(next(iterator)))
        self._iterator = iterator
        most = 1 if self.single else min(self.remaining or MOST_BATCHES, MOST_BATCHES)
        until = tf.constant(time.time() + CALL_S, tf.float64)
        count, logs = self._several(iterator, tf.constant(most), until)
        self.ahead = int(count) - 1
        return logs.get_value()

    def begin_call(self, single: bool) -> None:
        """Determine whether the next call trains on one batch."""
        self.single = single

    def begin_epoch(self) -> None:
        """Forget the last call, of an epoch that may have been stopped."""
        self.ahead, self._iterator = 0, None

    def following(self, steps: Iterator[tuple[int, int, Any]], remaining: Callable[[int], int | None]) -> Any:
        """Yield the steps of an iterator of Keras that begin a call, without those that the call before has made.

        Args:
            steps: The first batch, the last batch and the iterator over data of each step of one batch.
            remaining: A function from a batch to the number of batches until the end of the epoch.
        """
        for begin, end, iterator in steps:
            if iterator is self._iterator and self.ahead:
                self.ahead -= 1
            else:
                self.remaining = remaining(begin)
                yield begin, end, iterator

    # ------------------------------------------------------------------ in the graph

    def _one_batch(self, data: Any) -> Any:
        strategy = self._model.distribute_strategy
        return reduce_per_replica(strategy.run(self._step, args=(data,)), strategy, reduction="auto")

    def _several_batches(self, iterator: Any, most: tf.Tensor, until: tf.Tensor) -> Any:
        def may_follow(count: tf.Tensor, more: tf.Tensor, _: Any) -> tf.Tensor:
            more = more & (count < most) & (tf.timestamp() < until)
            if self._goes_on is not None:
                more = more & tf.ensure_shape(tf.numpy_function(self._goes_on, [], tf.bool), [])
            return more

        def follow(count: tf.Tensor, _: tf.Tensor, logs: Any) -> Any:
            batch = iterator.get_next_as_optional()
            return tf.cond(
                batch.has_value(),
                lambda: (count + 1, tf.constant(True), self._logs(batch.get_value())),
                lambda: (count, tf.constant(False), logs),
            )

        first = (tf.constant(1), tf.constant(True), self._logs(iterator.get_next()))
        count, _, logs = tf.while_loop(may_follow, follow, first)
        return count, logs

    def _logs(self, data: Any) -> Any:
        return tf.experimental.Optional.from_value(self._one(_without_optionals(data)))


def _without_optionals(data: Any) -> Any:
    """Return a batch with None in place of each optional element, as Keras passes it to a train step."""
    return keras.tree.map_structure(lambda each: None if isinstance(each, tf.experimental.Optional) else each, data)
