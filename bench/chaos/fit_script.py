"""A Keras script whose weights show how often each sample of each epoch was applied (see signed_gradients.py).

    downpour run [flags] fit_script.py FOLDER

It calls `fit` CALLS times for EPOCHS epochs. The model has a table of one weight per sample for each shard, the loss is
the sum of the weights of a batch, and the learning rate of epoch e of call c is `RATE * 8^(EPOCHS * c + e)`, which a
callback sets. The files that callbacks and the script write into FOLDER are checked by script_checks.py. Two
environment variables complete its arguments: DOWNPOUR_CHAOS_FLAGS, the file of shared_flags.py, and
DOWNPOUR_CHAOS_SHAPE, `slices samples pause_ms`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from downpour.bench.chaos.shared_flags import (
    ANSWERED,
    FILE_VARIABLE,
    IN_FLIGHT,
    NO_PAUSE,
    SENT,
    SHAPE_VARIABLE,
    SharedFlags,
)
from downpour.bench.chaos.signed_gradients import BATCH, CALLS, EPOCHS, RATE, initial_weights
from downpour.worker import script
from downpour.worker.fit.optimizer.distributed_optimizer import DistributedOptimizer


class Sum(keras.losses.Loss):
    """The sum of the outputs, whose gradient is 1 for the weights of the samples of a batch."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the sum of the outputs of each sample, `float32[batch]`."""
        return keras.ops.sum(y_pred, axis=-1)


class Record(keras.callbacks.Callback):
    """The epochs that callbacks are called for."""

    def __init__(self) -> None:
        """Build a record without epochs."""
        super().__init__()
        self.begun: list[int] = []
        self.ended: list[int] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Record the beginning of an epoch."""
        self.begun.append(epoch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Record the end of an epoch."""
        self.ended.append(epoch)


def show_pushes(member: Any, flags: SharedFlags, pause_s: float) -> None:
    """Let the flags show which pushes of this worker are in flight, and make its steps last for some time."""
    rank, exchange, pause = member.rank, member.push_pull, threading.Event()

    def push_pull(gradient: Any, info: Any) -> Any:
        if not flags[NO_PAUSE]:
            pause.wait(pause_s)
        push = flags[SENT + rank] = (flags[SENT + rank] + 1) % 256
        flags[IN_FLIGHT + rank] = 1
        try:
            flat = exchange(gradient, info)
        finally:
            flags[IN_FLIGHT + rank] = 0
        flags[ANSWERED + rank] = push
        return flat

    member.push_pull = push_pull


def rate_of(first: int) -> Callable[[int], float]:
    """Return the learning rate by epoch in a call of `fit` before which there were `first` epochs."""
    return lambda epoch: RATE * 8.0 ** (first + epoch)


def main(out: Path) -> None:
    """Train, and write what the checks read."""
    slices, samples, pause_ms = map(int, os.environ[SHAPE_VARIABLE].split())
    flags, rank = SharedFlags(Path(os.environ[FILE_VARIABLE])), script.member.rank if script.member else 0
    flags[IN_FLIGHT + rank] = 0  # of an earlier process
    show_pushes(script.member, flags, pause_ms / 1000)
    inputs = keras.Input((1,), dtype="int32")
    tables = [keras.layers.Embedding(samples, 1, name=f"slice_{number}") for number in range(slices)]
    model = keras.Model(inputs, keras.layers.Concatenate()([keras.layers.Flatten()(t(inputs)) for t in tables])
                        if slices > 1 else keras.layers.Flatten()(tables[0](inputs)))  # fmt: skip
    model.set_weights(list(initial_weights(slices, samples).reshape(slices, samples, 1)))
    model.compile(optimizer=DistributedOptimizer(keras.optimizers.SGD(RATE)), loss=Sum(reduction="sum"))
    x, y = np.arange(samples, dtype=np.int32)[:, None], np.zeros((samples, 1), np.float32)
    reports = []
    for call in range(CALLS):
        record, first = Record(), EPOCHS * call
        history = model.fit(
            x, y, batch_size=BATCH, epochs=EPOCHS, verbose=0, validation_data=(x[:BATCH], y[:BATCH]),
            callbacks=[
                keras.callbacks.LearningRateScheduler(rate_of(first)),
                record,
                keras.callbacks.CSVLogger(str(out / f"log-{call}.csv")),
                keras.callbacks.ModelCheckpoint(str(out / f"call-{call}-{{epoch}}.weights.h5"), save_weights_only=True),
            ],
        )  # fmt: skip
        np.save(out / f"weights-{call}-{rank}.npy", np.concatenate([w.ravel() for w in model.get_weights()]))
        reports.append(
            {
                "epochs": history.epoch,
                "begun": record.begun,
                "ended": record.ended,
                "history": history.history,
                "iterations": int(model.optimizer.iterations.numpy()),
            }
        )
    (out / f"report-{rank}.json").write_text(json.dumps(reports, default=float))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
