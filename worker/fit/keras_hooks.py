"""Where Keras's training loop calls `Epochs`: around a train step, at the end of the batches, in two callbacks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.tensorflow import trainer as keras_trainer

from downpour.worker.fit.distributed_optimizer import set_wire
from downpour.worker.fit.epochs import Epochs


class _Lent(keras_trainer.TFEpochIterator):
    """Keras takes the batches of the first epoch for the number of all; of leases there may be more or fewer."""

    @contextmanager
    def catch_stop_iteration(self) -> Iterator[None]:
        """The end of an epoch."""
        try:
            yield
            self.tf_sync()
        except (StopIteration, tf.errors.OutOfRangeError):
            self._current_iterator = None
            self.data_adapter.on_epoch_end()


class Attached:
    """Context: the model's train step and its metrics are seen by `Epochs`, XLA is off."""

    def __init__(self, epochs: Epochs) -> None:
        """Changes nothing yet."""
        self._epochs, self._model, self._keras = epochs, epochs.model, keras_trainer

    def __enter__(self) -> None:
        """Wraps two methods of this one model."""
        model, epochs = self._model, self._epochs
        train_step, result, evaluate = model.train_step, model._get_metrics_result_or_logs, model.evaluate

        def counted_train_step(data: Any) -> Any:
            wire = epochs.wire
            wire.loss, wire.samples = None, tf.shape(keras.tree.flatten(data)[0])[0]
            return train_step(data)

        def evaluate_aside(*args: Any, **kwargs: Any) -> Any:
            with epochs.aside():
                return evaluate(*args, **kwargs)

        model.train_step, model.evaluate = counted_train_step, evaluate_aside
        model._get_metrics_result_or_logs = lambda logs: epochs.end_of_batches(logs, result)
        if epochs.leased:
            self._keras.TFEpochIterator = _Lent
        model.jit_compile = False  # XLA cannot call out to the servers
        model.train_function = None

    def __exit__(self, *reason: object) -> None:
        """Puts Keras's own back."""
        model = self._model
        self._keras.TFEpochIterator = _Lent.__base__
        del model.train_step, model.evaluate, model._get_metrics_result_or_logs
        model.train_function = None
        model._initial_epoch = 0
        set_wire(model.optimizer, None)


class First(keras.callbacks.Callback):
    """Runs before the script's callbacks."""

    def __init__(self, epochs: Epochs) -> None:
        """Tells `epochs`."""
        super().__init__()
        self._epochs = epochs

    def on_train_begin(self, logs: Any = None) -> None:
        """The model is built."""
        self._epochs.begin((self.params or {}).get("steps"))


class Last(keras.callbacks.Callback):
    """Runs after the script's callbacks."""

    def __init__(self, epochs: Epochs) -> None:
        """Tells `epochs`."""
        super().__init__()
        self._epochs = epochs

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """An epoch; a callback may have set its learning rate."""
        self._epochs.begin_epoch(epoch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """A batch, or several with `steps_per_execution`."""
        self._epochs.after_batch()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Validation and callbacks are done."""
        self._epochs.end_epoch(epoch, logs)

    def on_train_end(self, logs: Any = None) -> None:
        """The last callback has had its say."""
        self._epochs.end()
