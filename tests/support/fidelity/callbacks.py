"""Rows of every callback of Keras."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

import keras

from tests.support.fidelity.row import REFUSED, Result, Row, X, Y, compiled, data, result, small_model

CALLBACK_BASES = {"Callback", "CallbackList", "History"}  # what the others are made of


def _run(make: Callable[[], Any], facts: Callable[[], dict[str, Any]] = dict, epochs: int = 3) -> Callable[[], Result]:
    def run() -> Result:
        model = compiled(small_model(), metrics=["mae"])
        history = model.fit(data(), epochs=epochs, verbose=0, callbacks=[make()], validation_data=(X[:20], Y[:20]))
        return result(model, history, **facts())

    return run


def _lines(path: str) -> Callable[[], dict[str, Any]]:
    return lambda: {"lines": open(path).read().count("\n")}


def _files(folder: str) -> Callable[[], dict[str, Any]]:
    return lambda: {"files": sorted(name for name in os.listdir(folder) if name.startswith("saved"))}


def _written(folder: str) -> Callable[[], dict[str, Any]]:
    return lambda: {"written": sorted(os.listdir(folder))}


def _early_stopping() -> Result:
    model = compiled(small_model(), keras.optimizers.SGD(0.3))
    stopping = keras.callbacks.EarlyStopping("loss", min_delta=10.0, patience=1, restore_best_weights=True)
    history = model.fit(data(), epochs=5, verbose=0, callbacks=[stopping])
    return result(model, history, stopped=stopping.stopped_epoch, best=stopping.best_epoch)


def _swap_ema() -> Result:
    model = compiled(small_model(), keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.5))
    history = model.fit(data(), epochs=2, verbose=0, callbacks=[keras.callbacks.SwapEMAWeights(swap_on_epoch=True)])
    return result(model, history)


def _closures() -> Result:
    losses: list[float] = []
    batches: list[int] = []
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: losses.append(float(logs["loss"])),
        on_train_batch_end=lambda batch, logs: batches.append(batch),
    )
    model = compiled(small_model())
    history = model.fit(data(), epochs=3, verbose=0, callbacks=[note])
    assert losses == [float(loss) for loss in history.history["loss"]]
    return result(model, history, called=bool(batches))


def _scheduler() -> Result:
    rates = (0.001, 0.1, 0.01)
    model = compiled(small_model())
    history = model.fit(
        data(), epochs=3, verbose=0, callbacks=[keras.callbacks.LearningRateScheduler(lambda epoch: rates[epoch])]
    )
    return result(model, history, rates=[round(float(rate), 6) for rate in history.history["learning_rate"]])


def _plateau() -> Result:
    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.1, patience=1, min_delta=10.0)
    model = compiled(small_model())
    history = model.fit(data(), epochs=4, verbose=0, callbacks=[plateau])
    return result(model, history, rates=[round(float(rate), 6) for rate in history.history["learning_rate"]])


def _terminate() -> Result:
    model = compiled(small_model(), keras.optimizers.SGD(1e30))
    history = model.fit(data(), epochs=4, verbose=0, callbacks=[keras.callbacks.TerminateOnNaN()])
    return {"weights": [], "losses": [], "facts": {"ended": len(history.epoch) < 4 or bool(model.stop_training)}}


def _orbax() -> Result:
    return _run(lambda: keras.callbacks.OrbaxCheckpoint("orbax"), _written("orbax"))()


callbacks = keras.callbacks
CALLBACKS: dict[str, Row] = {
    row.name: row
    for row in [
        Row("callback", "BackupAndRestore", _run(lambda: callbacks.BackupAndRestore("backup")), REFUSED,
            "BackupAndRestore"),
        Row("callback", "CSVLogger", _run(lambda: callbacks.CSVLogger("log.csv"), _lines("log.csv"))),
        Row("callback", "EarlyStopping", _early_stopping),
        Row("callback", "LambdaCallback", _closures),
        Row("callback", "LearningRateScheduler", _scheduler),
        Row("callback", "ModelCheckpoint",
            _run(lambda: callbacks.ModelCheckpoint("saved-{epoch}.weights.h5", save_weights_only=True), _files("."))),
        Row("callback", "OrbaxCheckpoint", _orbax, REFUSED, "[Oo]rbax", package="orbax"),
        Row("callback", "ProgbarLogger", _run(lambda: callbacks.ProgbarLogger())),
        Row("callback", "ReduceLROnPlateau", _plateau),
        Row("callback", "RemoteMonitor", _run(lambda: callbacks.RemoteMonitor("http://127.0.0.1:9"))),
        Row("callback", "SwapEMAWeights", _swap_ema, REFUSED, "SwapEMAWeights"),
        Row("callback", "TensorBoard", _run(lambda: callbacks.TensorBoard("board"), _written("board"))),
        Row("callback", "TerminateOnNaN", _terminate),
    ]
}  # fmt: skip


def callback_rows() -> list[Row]:
    """Return a row for each callback that Keras exports.

    Raises:
        LookupError: Keras has a callback without a decision.
    """
    names = {name for name, each in vars(callbacks).items() if inspect.isclass(each)} - CALLBACK_BASES
    new = sorted(names - set(CALLBACKS))
    if new:
        raise LookupError(f"callbacks {new} are new in Keras {keras.__version__}: decide what they do")
    return [CALLBACKS[name] for name in sorted(names)]
