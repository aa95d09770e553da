"""Callbacks of many kinds; every worker prints what it saw, which must be the same as on worker 0."""

import json
import math
import time

import keras
import numpy as np

import downpour
from downpour import DistributedOptimizer

x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
y = x[:, :1]
seen: dict[str, object] = {}


def model(rate=0.01, **more):
    made = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    made.compile(DistributedOptimizer(keras.optimizers.SGD(rate)), **{"loss": "mse", "jit_compile": False, **more})
    return made


def closures_see_the_logs_of_the_job():
    logs_seen = []
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: logs_seen.append(dict(logs)))
    trained = model()
    for _ in range(2):
        trained.fit(x, y, batch_size=8, epochs=2, verbose=0, validation_split=0.25, callbacks=[note])
    assert len(logs_seen) == 4 and all(set(logs) == {"loss", "val_loss"} for logs in logs_seen)
    return logs_seen


def best_weights_are_restored():
    stopping = keras.callbacks.EarlyStopping("val_loss", patience=1, restore_best_weights=True)
    trained = model(1.9)
    history = trained.fit(x, y, batch_size=64, epochs=8, verbose=0, validation_data=(x, -y), callbacks=[stopping])
    best = min(history.history["val_loss"])
    assert abs(trained.evaluate(x, -y, verbose=0) - best) < 1e-4 * max(best, 1)
    return history.epoch, stopping.best_epoch, trained.get_weights()[0].ravel().tolist()


def rates_follow_a_plateau():
    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=1e6)
    trained = model()
    trained.fit(x, y, batch_size=8, epochs=4, verbose=0, callbacks=[plateau])
    rate = float(trained.optimizer.learning_rate)
    assert abs(rate - 0.00125) < 1e-7, rate
    return rate


def the_first_epoch_has_the_rate_set_for_it():
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 1e-6 if epoch == 0 else 0.0)
    trained = model(1.0)
    before = trained.get_weights()[0]
    trained.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=[scheduler])
    moved = float(np.abs(trained.get_weights()[0] - before).max())
    assert moved < 1e-3, moved
    return float(trained.optimizer.learning_rate)


class Cosine(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.begun, self.ended, self.steps = [], [], None

    def on_train_batch_begin(self, batch, logs=None):
        self.steps = self.params["steps"]
        self.model.optimizer.learning_rate = 0.05 * (1 + math.cos(math.pi * len(self.begun) / 40))
        self.begun.append(batch)

    def on_train_batch_end(self, batch, logs=None):
        assert "loss" in logs or batch == 0
        self.ended.append(batch)


def batch_hooks_are_called_for_every_batch_of_the_job():
    cosine, trained = Cosine(), model()
    trained.fit(np.tile(x, (5, 1)), np.tile(y, (5, 1)), batch_size=16, epochs=2, verbose=0, callbacks=[cosine])
    assert cosine.begun == cosine.ended == [*range(20), *range(20)], cosine.begun
    assert cosine.steps == 20
    return float(trained.optimizer.learning_rate)


class Leads(keras.callbacks.Callback):
    only_on_leader = True

    def __init__(self, sink):
        super().__init__()
        self.sink = sink

    def on_epoch_end(self, epoch, logs=None):
        self.sink.append(downpour.rank())


def some_run_on_worker_0_alone():
    sink, shared = [], []
    own = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: sink.append(epoch))
    trained = model()
    for _ in range(2):
        trained.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[Leads(shared), own])
    assert sink == [0, 1, 0, 1] and all(each == 0 for each in shared)
    return sink


class Pruned(Exception):
    """As optuna.TrialPruned is: an exception of the script's own."""


def raised(kind, text, worker=None, hook="on_epoch_end"):
    def fail(*args, **kwargs):
        if worker is None or downpour.rank() == worker:
            raise kind(text)

    begun = time.monotonic()
    try:
        model().fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=[keras.callbacks.LambdaCallback(**{hook: fail})])
    except kind as error:
        assert time.monotonic() - begun < 20
        return type(error).__name__, str(error)
    raise AssertionError("fit must end with the error")


def errors_end_fit_on_all_workers():
    return [
        raised(ValueError, "of all"),
        raised(ValueError, "of worker 0", worker=0),
        raised(KeyError, "of worker 1", worker=1),
        raised(Pruned, "of worker 1's batch", worker=1, hook="on_train_batch_end"),
        raised(Pruned, "before training", worker=0, hook="on_train_begin"),
        model().fit(x, y, batch_size=8, epochs=1, verbose=0).epoch,
    ]


def weights_set_by_callbacks_are_trained_on():
    class Sets(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                self.model.set_weights([np.full((3, 1), 7.0, "float32")])

        def on_train_end(self, logs=None):
            self.model.set_weights([self.model.get_weights()[0] + 1])

    trained = model(1e-6)
    trained.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[Sets()])
    weights = trained.get_weights()[0].ravel()
    assert np.abs(weights - 8).max() < 1e-2, weights
    return weights.tolist()


CASES = (
    closures_see_the_logs_of_the_job, best_weights_are_restored, rates_follow_a_plateau,
    the_first_epoch_has_the_rate_set_for_it, batch_hooks_are_called_for_every_batch_of_the_job,
    some_run_on_worker_0_alone, errors_end_fit_on_all_workers, weights_set_by_callbacks_are_trained_on,
)  # fmt: skip
for case in CASES:
    seen[case.__name__] = case()
print("SEEN", json.dumps(seen, default=float))
