"""The places where Keras's training loop calls `Epochs`: the train step, the end of the batches, the callbacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import tensorflow as tf
from keras.src.backend.tensorflow import trainer as keras_trainer

from downpour.worker.fit.epochs import Epochs
from downpour.worker.fit.job_callbacks import JobCallbackList
from downpour.worker.fit.optimizer.distributed_optimizer import intercepted
from downpour.worker.fit.optimizer.train_function import TrainFunction

WRAPPED = ("train_step", "evaluate", "_get_metrics_result_or_logs")  # methods of the model


class _EpochIterator(keras_trainer.TFEpochIterator):
    """An iterator that continues after the batches that a call of the train function has trained on."""

    def __init__(self, function: TrainFunction, *args: Any, **kwargs: Any) -> None:
        """Build the iterator with the arguments of Keras's."""
        super().__init__(*args, **kwargs)
        self._function = function

    def _enumerate_iterator(self) -> Any:
        """Return the steps that begin a call."""
        steps = super()._enumerate_iterator()
        loop = self._function.loop
        return steps if loop is None else loop.following(steps, self._remaining)

    def _remaining(self, batch: int) -> int | None:
        """Return the number of batches from this one to the end of the epoch; None if it is not known."""
        ends = [self.steps_per_epoch - batch] if self.steps_per_epoch else []
        if self._num_batches:
            ends.append(self._num_batches - self._steps_seen + 1)  # this one has been counted
        return min(ends, default=None)


class _LeasedEpochIterator(_EpochIterator):
    """An iterator whose epochs may differ in length, as leases do; Keras's own repeats the length of the first."""

    @contextmanager
    def catch_stop_iteration(self) -> Iterator[None]:
        """End the epoch when the data end."""
        try:
            yield
            self.tf_sync()
        except (StopIteration, tf.errors.OutOfRangeError):
            self._current_iterator = None
            self.data_adapter.on_epoch_end()


class TrainerHooks:
    """A context in which `Epochs` is called from the train step, the metrics and the evaluation of its model."""

    def __init__(self, epochs: Epochs) -> None:
        """Build a context that changes the model when it is entered."""
        self._epochs, self._model, self._keras = epochs, epochs.model, keras_trainer
        self._guard = ExitStack()
        self._own: dict[str, Any] = {}

    def __enter__(self) -> None:
        """Wrap methods of this model, and turn XLA off."""
        model, epochs = self._model, self._epochs
        result, evaluate = model._get_metrics_result_or_logs, model.evaluate
        self._own = {name: vars(model)[name] for name in WRAPPED if name in vars(model)}  # a script may assign them

        def marked_evaluate(*args: Any, **kwargs: Any) -> Any:
            validating = bool(kwargs.get("_use_cached_eval_dataset"))  # Keras's own call after an epoch
            if validating and (logs := epochs.validation_of_others()) is not None:
                return logs
            with epochs.evaluating(validating):
                return evaluate(*args, **kwargs)

        model.train_step, model.evaluate = epochs.function.train_step, marked_evaluate
        model._get_metrics_result_or_logs = lambda logs: epochs.reduce_logs(logs, result)
        kind = _LeasedEpochIterator if epochs.leased else _EpochIterator
        self._keras.TFEpochIterator = partial(kind, epochs.function)
        self._keras.callbacks_module.CallbackList = JobCallbackList
        model.jit_compile = False  # XLA cannot call out to the servers
        epochs.function.enter()
        self._guard.enter_context(intercepted(self._plain_applied))

    def _plain_applied(self, optimizer: Any, variables: Sequence[Any]) -> bool:
        if self._epochs.has_begun:
            self._epochs.optimizers.refuse(optimizer, variables, self._epochs.gradient_op.trained)
        return True

    def __exit__(self, *reason: object) -> None:
        """Restore the methods of Keras."""
        model, epochs = self._model, self._epochs
        self._keras.TFEpochIterator = _EpochIterator.__base__
        self._keras.callbacks_module.CallbackList = JobCallbackList.__base__
        for name in WRAPPED:
            delattr(model, name)
        for name, value in self._own.items():
            setattr(model, name, value)
        epochs.function.leave()
        model._initial_epoch = 0
        epochs.optimizers.connect(None)
        epochs.optimizers.read_slots(None)
        self._guard.close()
