"""A `fit` whose worker 0 dies once: in a callback at an epoch's end, or at an epoch's beginning."""

import json
import os
import signal
import sys
from pathlib import Path

import keras
import numpy as np

from downpour import DistributedOptimizer
from downpour.worker import script

out, where = Path(sys.argv[1]), sys.argv[2]
rank, marker = script.member.rank, out / "died"
SAMPLES, EPOCHS, RATES = 160, 4, [1.0, 8.0, 1.0, 64.0]


class Sum(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.sum(y_pred, axis=-1)


class Die(keras.callbacks.Callback):
    def die(self):
        if rank == 0 and not marker.exists():
            marker.write_text("once")
            os.kill(os.getpid(), signal.SIGKILL)

    def on_epoch_begin(self, epoch, logs=None):
        if where == "begin" and epoch == 2:
            self.die()

    def on_epoch_end(self, epoch, logs=None):
        if where == "end" and epoch == 1:
            self.die()


class Count(keras.callbacks.Callback):
    only_on_leader = True

    def on_epoch_end(self, epoch, logs=None):
        np.save(out / f"epoch-{epoch}.npy", self.model.get_weights()[0][:, 0])


x = np.arange(SAMPLES, dtype=np.int32)[:, None]
y = np.zeros((SAMPLES, 1), np.float32)
model = keras.Sequential(
    [
        keras.layers.Input((1,), dtype="int32"),
        keras.layers.Embedding(SAMPLES, 1, embeddings_initializer="zeros"),
        keras.layers.Flatten(),
    ]
)
model.compile(optimizer=DistributedOptimizer(keras.optimizers.SGD(1.0)), loss=Sum(reduction="sum"))
history = model.fit(
    x,
    y,
    batch_size=8,
    epochs=EPOCHS,
    verbose=0,
    callbacks=[
        Die(),
        keras.callbacks.LearningRateScheduler(lambda epoch: RATES[epoch]),
        Count(),
        keras.callbacks.CSVLogger(str(out / "log.csv")),
        keras.callbacks.CSVLogger(str(out / "appended.csv"), append=True),
        keras.callbacks.ModelCheckpoint(str(out / "{epoch}.weights.h5"), save_weights_only=True),
    ],
)
report = {"epochs": history.epoch, "history": history.history, "weights": model.get_weights()[0][:, 0].tolist()}
(out / f"report-{rank}.json").write_text(json.dumps(report, default=float))
