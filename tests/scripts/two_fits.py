"""Two calls of `fit` in which every sample subtracts 1 from a weight of its own; worker 1 may hang in the first.

With `hang` it hangs after a batch until it receives SIGUSR1, with `stop` for ever in the middle of a batch.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import keras
import numpy as np

from downpour import DistributedOptimizer
from downpour.worker import script

out, epochs, samples, pause_s = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
hangs, stops = "hang" in sys.argv, "stop" in sys.argv
rank = script.member.rank
released = []
signal.signal(signal.SIGUSR1, lambda *_: released.append(True))


class Sum(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.sum(y_pred, axis=-1)


class Slow(keras.callbacks.Callback):
    def __init__(self, call):
        super().__init__()
        self.call, self.begun, self.ended, self.own = call, [], [], 0

    def on_epoch_begin(self, epoch, logs=None):
        self.begun.append(epoch)
        print(f"CALL {self.call} EPOCH {epoch}", flush=True)

    def on_epoch_end(self, epoch, logs=None):
        self.ended.append(epoch)

    def on_train_batch_begin(self, batch, logs=None):
        while stops and rank == 1 and self.own >= 12:
            time.sleep(0.05)

    def on_train_batch_end(self, batch, logs=None):
        if batch == 10:
            print(f"CALL {self.call} EPOCH {self.begun[-1]} BATCH {batch} PID {os.getpid()}", flush=True)
        time.sleep(pause_s)
        self.own += 1
        while hangs and rank == 1 and self.call == 0 and self.own >= 12 and not released:
            time.sleep(0.05)


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
reports = []
for call in range(2):
    slow = Slow(call)
    history = model.fit(x, y, batch_size=8, epochs=epochs, verbose=0, callbacks=[slow])
    reports.append(
        {
            "begun": slow.begun,
            "ended": slow.ended,
            "epochs": history.epoch,
            "history": history.history,
            "uses": (-model.get_weights()[0][:, 0]).tolist(),
            "iterations": int(model.optimizer.iterations.numpy()),
        }
    )
(out / f"report-{rank}.json").write_text(json.dumps(reports))
