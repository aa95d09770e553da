"""`fit` whose validation is spread over the workers; writes its logs, and those of one process after each epoch."""

import json
import os
import signal
import sys
from pathlib import Path

import keras
import numpy as np

from downpour import DistributedOptimizer
from downpour.worker import script

out, kind = Path(sys.argv[1]), sys.argv[2]
rank = script.member.rank if script.member else 0
random = np.random.default_rng(0)
x = random.normal(size=(640, 4)).astype("float32")
y = (x.sum(1) > 0).astype("int64")
held = 8 if kind == "one batch" else 104
x_val, y_val = x[:held], y[:held]


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return -(-len(x_val) // 8)

    def __getitem__(self, index):
        return x_val[8 * index : 8 * index + 8], y_val[8 * index : 8 * index + 8]


class Compare(keras.callbacks.Callback):
    """Counts the batches that this worker validates, and evaluates all of them after the epoch."""

    def __init__(self):
        super().__init__()
        self.whole, self.tested, self.counting = [], [], True

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_test_batch_begin(self, batch, logs=None):
        if kind == "killed" and rank == 1 and self.epoch == 1 and batch == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_test_batch_end(self, batch, logs=None):
        own.extend([batch] * self.counting)

    def on_test_end(self, logs=None):
        if self.counting:
            self.tested.append(dict(logs))

    def on_train_end(self, logs=None):
        seen.append(logs["val_loss"])

    def on_epoch_end(self, epoch, logs=None):
        seen.append(logs.get("val_loss"))
        self.counting = False
        self.whole.append(self.model.evaluate(x_val, y_val, batch_size=8, verbose=0, return_dict=True))
        self.counting = True


own, seen = [], []  # not of the callback, whose state is that of worker 0 after `fit`
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2, "softmax")])
metrics = ["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(1, name="top")]
model.compile(DistributedOptimizer(keras.optimizers.SGD(0.1)), "sparse_categorical_crossentropy", metrics=metrics)
compare = Compare()
stop = keras.callbacks.EarlyStopping("val_loss", patience=5)
history = model.fit(
    x, y, batch_size=8, epochs=4, verbose=0, callbacks=[compare, stop],
    validation_data=Batches() if kind == "dataset" else (x_val, y_val),
    validation_freq=2 if kind == "every second epoch" else 1,
)  # fmt: skip
report = {"history": history.history, "own": len(own), "whole": compare.whole, "tested": compare.tested, "seen": seen}
report["best"] = float(stop.best)
(out / f"report-{rank}.json").write_text(json.dumps(report, default=float))
