"""Which callbacks have batch hooks, and for which batches they are called."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

from downpour.worker.fit.callback_state import Validation
from downpour.worker.fit.job_callbacks import JobCallbackList, has_batch_hooks


class Recorder(keras.callbacks.Callback):
    """A callback that records the batches that have ended, and stops training after one of them."""

    def __init__(self, stop: int) -> None:
        super().__init__()
        self.stop, self.ended = stop, list[int]()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.ended.append(batch)
        if batch == self.stop:
            self.model.stop_training = True


@pytest.mark.parametrize(("stop", "called"), [(7, 8), (100, 9)])
@pytest.mark.parametrize("stopped", [True, False])
def test_a_worker_calls_the_hooks_up_to_the_batch_at_which_another_has_stopped(
    stop: int, called: int, stopped: bool
) -> None:
    model: Any = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    recorder = Recorder(stop)
    callbacks: Any = JobCallbackList([recorder], model=model, epochs=1, steps=None)
    callbacks.on_epoch_begin(0)
    epochs = SimpleNamespace(
        model=model, job_batches=9, leased=True, batches=0, send_assigned=lambda assigned: None,
        validation=None, gradient_op=SimpleNamespace(steps=0, batches=0), arguments=SimpleNamespace(job_steps=21),
        after_batch=lambda batch: None, ahead=0, begin_call=lambda single: None,
    )  # fmt: skip
    callbacks._epochs, callbacks._script = epochs, [recorder]
    callbacks.on_train_batch_begin(0)
    callbacks.on_train_batch_end(0)
    model.stop_training = stopped  # the job drains, because another worker has stopped
    callbacks.on_epoch_end(0)
    assert recorder.ended == list(range(called))
    assert model.stop_training is (stopped or stop == 7)


class ValidationRecorder(keras.callbacks.Callback):
    """A callback that records the hooks of validations."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []

    def on_test_begin(self, logs: Any = None) -> None:
        self.calls.append("begin")

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.calls.append(batch)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self.calls.append((batch, logs))

    def on_test_end(self, logs: Any = None) -> None:
        self.calls.append(logs)


@pytest.mark.parametrize("hooks", [True, False])
def test_the_other_workers_repeat_the_calls_of_the_hooks_of_a_validation(hooks: bool) -> None:
    model: Any = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    shared: list[Validation] = []
    first, second = ValidationRecorder(), ValidationRecorder()
    validating: Any = JobCallbackList([first], model=model)
    validating._epochs = SimpleNamespace(validated=shared.append, spreads_validation=False)
    validating._script = [first if hooks else keras.callbacks.History()]
    model.evaluate(np.ones((5, 1)), np.ones((5, 1)), batch_size=2, verbose=0, callbacks=validating)
    assert len(shared) == hooks
    if hooks:
        repeated = Validation.decode(shared[0].encode())
        assert repeated is not None
        repeated.call([second])
        assert second.calls == first.calls and len(second.calls) == 8


def test_a_long_validation_is_sent_without_its_batches() -> None:
    batches = [(number, number, {"loss": 0.1}) for number in range(40_000)]
    repeated = Validation.decode(Validation(batches, {"loss": 0.5}).encode())
    assert repeated is not None and (repeated.batches, repeated.logs) == ([], {"loss": 0.5})
    assert Validation.decode("") is None


@pytest.mark.parametrize(("stride", "own"), [(4, 3), (3, 2), (5, 1)])
def test_the_last_execution_of_each_worker_has_no_batches_beyond_those_of_the_epoch(stride: int, own: int) -> None:
    model: Any = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", steps_per_execution=stride)
    recorder, steps = Recorder(-1), stride * own + 1  # the last execution of this worker has one batch
    callbacks: Any = JobCallbackList([recorder], model=model, epochs=1, steps=None)
    callbacks.on_epoch_begin(0)
    epochs = SimpleNamespace(
        model=model, job_batches=stride * (own + 1), leased=True, batches=0, send_assigned=lambda assigned: None,
        validation=None, gradient_op=SimpleNamespace(steps=0, batches=0), arguments=SimpleNamespace(job_steps=steps),
        ahead=0, begin_call=lambda single: None,
    )  # fmt: skip
    epochs.after_batch = lambda last: setattr(epochs, "batches", last + 1)
    callbacks._epochs, callbacks._script = epochs, [recorder]
    for number in range(own + 1):
        callbacks.on_train_batch_begin(number * stride)
        callbacks.on_train_batch_end((number + 1) * stride - 1)
    callbacks.on_epoch_end(0)
    assert recorder.ended == [*range(stride - 1, steps - 1, stride), steps - 1]


class Inherits(keras.callbacks.ModelCheckpoint):
    """A checkpoint of the script's own."""


def _with_own_hook(callback: Any) -> Any:
    callback.on_train_batch_end = lambda batch, logs=None: None
    return callback


CALLBACKS = keras.callbacks
HOOKED: list[tuple[Any, bool]] = [
    (CALLBACKS.Callback(), False),
    (CALLBACKS.EarlyStopping(), False),
    (CALLBACKS.LambdaCallback(on_epoch_end=lambda epoch, logs: None), False),
    (CALLBACKS.ModelCheckpoint("a.keras"), False),
    (CALLBACKS.ModelCheckpoint("a.keras", save_freq=10), True),
    (_with_own_hook(CALLBACKS.ModelCheckpoint("a.keras")), True),
    (Inherits("a.keras"), True),
    (CALLBACKS.TerminateOnNaN(), True),
    (CALLBACKS.LambdaCallback(on_train_batch_begin=lambda batch, logs: None), True),
    (_with_own_hook(CALLBACKS.EarlyStopping()), True),
    (Recorder(1), True),
]


@pytest.mark.parametrize(("callback", "hooked"), HOOKED)
def test_a_call_may_train_on_several_batches_unless_a_callback_has_batch_hooks(callback: Any, hooked: bool) -> None:
    assert has_batch_hooks(callback) is hooked


class Job:
    """The epochs of a worker that trains on every second batch of a job, several of them in each call."""

    leased, job_batches, batches, ahead = True, 20, 0, 3

    def __init__(self, model: Any) -> None:
        self.model, self.single = model, list[bool]()
        self.arguments = SimpleNamespace(job_steps=20)

    @property
    def gradient_op(self) -> Any:
        return SimpleNamespace(steps=self.batches, batches=2 * self.batches)

    def begin_call(self, single: bool) -> None:
        self.single.append(single)

    def send_assigned(self, assigned: Any) -> None:
        """Send nothing."""

    def after_batch(self, last: int) -> None:
        self.batches = last + 1


def test_a_progress_bar_shows_the_batches_of_the_job_that_a_call_has_ended_with() -> None:
    model: Any = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    bar = CALLBACKS.ProgbarLogger()
    callbacks: Any = JobCallbackList([CALLBACKS.EarlyStopping(), bar], model=model, epochs=1, steps=20, verbose=2)
    callbacks.on_epoch_begin(0)
    callbacks._epochs = job = Job(model)
    seen = []
    for first in (0, 4, 8):
        callbacks.on_train_batch_begin(first)
        callbacks.on_train_batch_end(first)
        seen.append((job.batches, bar.seen))
    assert seen == [(4, 4), (8, 12), (12, 20)]
    assert job.single == [False] * 3
