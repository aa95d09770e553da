"""A `fit` in which every sample subtracts 1 from a weight of its own, so that the weights count the uses of samples."""

import json
import os
import sys
import time
from pathlib import Path

import keras
import numpy as np

from downpour import DistributedOptimizer, LeasedDataset
from downpour.worker import script

out, epochs, samples, pause_s = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
rank = script.member.rank
print("PID", rank, os.getpid(), flush=True)


class Sum(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.sum(y_pred, axis=-1)


class Slow(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.begun = []

    def on_epoch_begin(self, epoch, logs=None):
        self.begun.append(epoch)
        print(f"EPOCH {epoch}", flush=True)

    def on_train_batch_end(self, batch, logs=None):
        time.sleep(pause_s)
        print(f"BATCH {batch}", flush=True)


x = np.arange(samples, dtype=np.int32)[:, None]
y = np.zeros((samples, 1), np.float32)
model = keras.Sequential(
    [
        keras.layers.Input((1,), dtype="int32"),
        keras.layers.Embedding(samples, 1, embeddings_initializer="zeros"),
        keras.layers.Flatten(),
    ]
)
model.compile(optimizer=DistributedOptimizer(keras.optimizers.SGD(1.0)), loss=Sum(reduction="sum"))
slow = Slow()
log = keras.callbacks.CSVLogger(str(out / "log.csv"))
arguments = {"epochs": epochs, "verbose": 0, "callbacks": [slow, log]}
if "arrays" in sys.argv:
    history = model.fit(x, y, batch_size=8, **arguments)
else:
    history = model.fit(LeasedDataset(x, y, batch_size=8), **arguments)
report = {"begun": slow.begun, "epochs": history.epoch, "uses": (-model.get_weights()[0][:, 0]).tolist()}
report["iterations"] = int(model.optimizer.iterations.numpy())
(out / f"report-{rank}.json").write_text(json.dumps(report))
