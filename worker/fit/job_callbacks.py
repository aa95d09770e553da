"""The callbacks of a script on one worker: which of them run there, and the batches that they are called for.

They run on every worker with the logs of the job, so that what they assign and collect is the same everywhere. Those
that write files or print run on worker 0. Their batch hooks are called once for every batch of the job, in order:
before its own batch, a worker makes the calls for the batches that the others have trained on in the meantime. As in
Keras, none is called after the batch in which a callback has asked to stop.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import keras
from keras.src.utils.python_utils import is_default, pythonify_logs

from downpour.protos.errors import Unsupported
from downpour.worker.fit.callback_state import Validation
from downpour.worker.fit.epochs import Epochs
from downpour.worker.fit.optimizer.assignments import recorded_assignments
from downpour.worker.fit.process.trackers import writes_to_tracker

BATCH_HOOKS = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")
WRITERS = ("ModelCheckpoint", "CSVLogger", "TensorBoard", "ProgbarLogger", "RemoteMonitor")


def listed(callbacks: Any) -> list[Any]:
    """Return the callbacks of a script as a list.

    Raises:
        Unsupported: A callback restores weights or counters that the servers do not have.
    """
    one = isinstance(callbacks, keras.callbacks.Callback) and not hasattr(callbacks, "callbacks")
    found = [callbacks] if one else keras.tree.flatten(getattr(callbacks, "callbacks", callbacks) or ())
    for callback in found:
        if isinstance(callback, keras.callbacks.BackupAndRestore | keras.callbacks.SwapEMAWeights):
            raise Unsupported(
                "fit must have no callback that keeps weights or counters in one process. "
                f"Received: {type(callback).__name__}. Use ModelCheckpoint."
            )
    return list(found)


def only_on_leader(callback: Any) -> bool:
    """Return whether a callback runs on worker 0 alone: it writes or prints, or has the attribute `only_on_leader`."""
    writers = tuple(getattr(keras.callbacks, name) for name in WRITERS)
    writes = isinstance(callback, writers) or writes_to_tracker(callback)
    return bool(getattr(callback, "only_on_leader", writes))


def has_batch_hooks(callback: Any) -> bool:
    """Return whether a callback does something in the hooks that are called for every batch of training."""
    if all(is_default(getattr(callback, name)) for name in BATCH_HOOKS):
        return False
    saves_epochs = type(callback) is keras.callbacks.ModelCheckpoint and callback.save_freq == "epoch"
    return not saves_epochs or any(name in vars(callback) for name in BATCH_HOOKS)


class FirstCallback(keras.callbacks.Callback):
    """The callback that runs before those of the script."""

    def __init__(self, epochs: Epochs) -> None:
        """Build a callback that calls `epochs`."""
        super().__init__()
        self.epochs = epochs

    def on_train_begin(self, logs: Any = None) -> None:
        """Join the other workers; the model is built by now."""
        self.epochs.begin((self.params or {}).get("steps"))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Share the logs of the epoch, which are complete once worker 0 has validated."""
        self.epochs.share_logs({} if logs is None else logs)


class LastCallback(keras.callbacks.Callback):
    """The callback that runs after those of the script."""

    def __init__(self, epochs: Epochs) -> None:
        """Build a callback that calls `epochs`."""
        super().__init__()
        self._epochs = epochs

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Begin an epoch, for which a callback may have set weights and the learning rate."""
        self._epochs.begin_epoch(epoch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """End the epoch, after which a callback may have stopped training."""
        self._epochs.end_epoch(logs)

    def on_train_end(self, logs: Any = None) -> None:
        """End the call of `fit`, after the last callback of the script."""
        self._epochs.end()


class JobCallbackList(keras.callbacks.CallbackList):
    """Keras's list of callbacks, with the batches of the job.

    A list without `FirstCallback`, such as that of an evaluation, is like Keras's own.
    """

    def __init__(self, callbacks: Any = None, *args: Any, **kwargs: Any) -> None:
        """Build the list with the arguments of Keras's."""
        first = next((each for each in callbacks or () if isinstance(each, FirstCallback)), None)
        self._epochs = first.epochs if first is not None else None
        self._script: Sequence[Any] = ()
        self._logs: Any = None  # of the last batch of this worker
        self._next = 0  # the batch of the job for which the hooks are called next
        self._begun = False  # the hooks at the beginning of the batch `_next` have been called
        self._stopped = False  # a batch hook of this epoch has asked to stop
        self._first_tested = 0
        self._validation: Validation | None = None  # on worker 0, if hooks of the script need it
        super().__init__(callbacks, *args, **kwargs)
        if self._epochs is not None:
            # Hooks that other threads called would see weights that change.
            self._async_train = False
            ours = FirstCallback | LastCallback | keras.callbacks.History | keras.callbacks.ProgbarLogger
            self._script = [callback for callback in self.callbacks if not isinstance(callback, ours)]

    @property
    def _hooked(self) -> Sequence[Any]:
        """The callbacks of the script that have batch hooks, which a callback may have set itself."""
        return [callback for callback in self._script if has_batch_hooks(callback)]

    def set_params(self, params: Any) -> None:
        """Set the parameters of all callbacks: the number of steps is that of the job."""
        super().set_params(params)
        if self._epochs is not None and params:
            steps = self._job_steps(params.get("steps"))
            for callback in self.callbacks[1:]:
                callback.set_params({**params, "steps": steps})

    def on_train_begin(self, logs: Any = None) -> None:
        """Begin training; a worker that joins late repeats the calls for the epochs before."""
        super().on_train_begin(logs)
        if self._epochs is None:
            return
        logs_of_end = None
        for past in self._epochs.past_epochs():
            logs_of_end = past.logs if past.is_ending else None
            called = [
                each for each in self.callbacks if _replays(each) or (past.is_ending and _ends(each, past.number))
            ]
            for callback in called:
                callback.on_epoch_begin(past.number)
            if past.is_ending:
                self._epochs.restore_weights()
            for callback in called:
                callback.on_epoch_end(past.number, past.logs if past.is_ending else dict(past.logs))
        if logs_of_end is None:
            self._epochs.restore_weights()
        self._epochs.catch_up(logs_of_end)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Begin an epoch, with the first batch."""
        self._next, self._begun, self._stopped = 0, False, False
        super().on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """End an epoch, after the calls for its last batches."""
        if self._epochs is not None:
            model = self._epochs.model
            stopped = bool(model.stop_training)
            if not self._stopped:  # By a hook of this worker. The job trained on all these batches before it stopped.
                model.stop_training = False
            self._call_until(min(self._epochs.job_batches, self._most_batches), self._hooked)
            model.stop_training = stopped or bool(model.stop_training)
            if self._epochs.validation is not None and not self._epochs.member.is_leader:
                self._epochs.validation.call(self._script)
        super().on_epoch_end(epoch, logs)

    def on_test_begin(self, logs: Any = None) -> None:
        """Begin a validation, whose calls the other workers repeat if a hook of the script needs them.

        Where each worker evaluates a part, there is nothing to repeat: its hooks are called for that part.
        """
        if self._epochs is not None and not self._epochs.spreads_validation and any(map(_has_test_hooks, self._script)):
            self._validation = Validation()
        super().on_test_begin(logs)

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Begin a batch of a validation."""
        self._first_tested = batch
        super().on_test_batch_begin(batch, logs)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        """End a batch of a validation."""
        if self._validation is not None:
            self._validation.batches.append((self._first_tested, batch, pythonify_logs(logs)))
        super().on_test_batch_end(batch, logs)

    def on_test_end(self, logs: Any = None) -> None:
        """Record the validation that has ended, for the hooks of the other workers."""
        if self._epochs is not None and self._validation is not None:
            self._epochs.validated(Validation(self._validation.batches, pythonify_logs(logs)))
            self._validation = None
        super().on_test_end(logs)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Begin a batch of this worker, after those that the others have trained on."""
        if self._epochs is not None:
            hooked = self._hooked
            self._epochs.begin_call(single=bool(hooked))
            self._call_until(self._job_batch(batch), hooked)
            batch = self._next
            # Keras asks for a batch after the last one, whose length it does not know.
            self._begun = not self._epochs.leased or batch < (self._epochs.arguments.job_steps or batch + 1)
        if not self._stopped and (self._epochs is None or self._begun):
            super().on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """End a batch of this worker, or several that one call has trained on."""
        if self._epochs is None:
            super().on_train_batch_end(batch, logs)
            return
        batch += self._epochs.ahead
        if not self._stopped and self._next < self._most_batches:
            self._logs = logs
            if not self._begun:  # of samples that were used before, by a worker or server that has died
                super().on_train_batch_begin(self._next)
            last = min(self._next + batch - self._epochs.batches, self._most_batches - 1)
            with recorded_assignments() as assigned:
                super().on_train_batch_end(last, logs)
            self._next, self._begun = last + 1, False
            self._stopped = bool(self._epochs.model.stop_training)
            self._epochs.send_assigned(assigned)
        self._epochs.after_batch(batch)

    def _job_steps(self, steps: int | None) -> int | None:
        """Return the expected number of batches of all workers in an epoch, from that of this worker."""
        assert self._epochs is not None
        if self._epochs.leased:
            return self._epochs.arguments.job_steps
        return steps and steps * self._epochs.member.size

    @property
    def _most_batches(self) -> int:
        """The number of batches of an epoch, where Keras counts those of the last execution as if it were complete."""
        assert self._epochs is not None
        steps = self._epochs.arguments.job_steps if self._epochs.model.steps_per_execution > 1 else None
        return steps if steps is not None and self._epochs.leased else sys.maxsize

    def _job_batch(self, batch: int) -> int:
        """Return how many batches all workers have trained on when a batch of this worker begins, or fewer."""
        assert self._epochs is not None
        if not self._epochs.leased:
            return batch * self._epochs.member.size  # the parts have about one length, and the order is the same on all
        op = self._epochs.gradient_op
        pushes = max(1, -(-op.steps // max(1, batch)))  # of a batch: one for each optimizer
        return max(batch, op.batches // pushes)

    def _call_until(self, stop: int, hooked: Sequence[Any]) -> None:
        """Call the batch hooks of the script for the batches of other workers before the batch `stop`."""
        assert self._epochs is not None
        if not hooked:
            if stop > self._next and not self._stopped:
                self._next, self._begun = stop, False
            return
        stride = self._epochs.model.steps_per_execution
        logs = pythonify_logs(self._logs)
        with recorded_assignments() as assigned:
            while self._next < stop and not self._stopped:
                last = min(self._next + stride, stop) - 1
                for callback in () if self._begun else hooked:
                    callback.on_train_batch_begin(self._next, logs=logs)
                for callback in hooked:
                    callback.on_train_batch_end(last, logs=logs)
                self._next, self._begun = last + 1, False
                self._stopped = bool(self._epochs.model.stop_training)
        self._epochs.send_assigned(assigned)


def _has_test_hooks(callback: Any) -> bool:
    """Return whether a callback that runs on all workers has a hook for validation."""
    names = ("on_test_begin", "on_test_batch_begin", "on_test_batch_end", "on_test_end")
    base = keras.callbacks.Callback
    own = any(name in vars(callback) or getattr(type(callback), name) is not getattr(base, name) for name in names)
    return own and not only_on_leader(callback)


def _ends(callback: Any, epoch: int) -> bool:
    """Return whether a callback that does not replay is called for the end of an epoch at which worker 0 has died."""
    if isinstance(callback, FirstCallback | LastCallback | keras.callbacks.ProgbarLogger):
        return False
    return not isinstance(callback, keras.callbacks.CSVLogger) or not _has_row(callback, epoch)


def _has_row(logger: Any, epoch: int) -> bool:
    """Return whether the file of a CSVLogger ends with the row of an epoch."""
    try:
        with open(logger.filename) as file:
            rows = file.read().splitlines()
    except OSError:
        return False
    return bool(rows) and rows[-1].split(logger.sep)[0] == str(epoch)


def _replays(callback: Any) -> bool:
    """Return whether a callback may be called for an epoch that is past, of which there are logs but no weights."""
    if isinstance(callback, FirstCallback | LastCallback | keras.callbacks.ProgbarLogger):
        return False
    if isinstance(callback, keras.callbacks.CSVLogger):
        return not callback.append
    return not only_on_leader(callback)
