"""Three calls of `fit` whose batch hooks are recorded, and whose workers are slow in turn: batch_hooks.py FOLDER."""

import json
import sys
import time
from pathlib import Path

import keras
import numpy as np

from downpour import DistributedOptimizer
from downpour.worker import script

BATCHES, STOP = 21, 7
rank = script.member.rank
slow_epochs = (0, 2) if rank else (1,)  # worker 0 ends the second epoch last, and the others end the first one last


class Slow(keras.Sequential):
    """A model whose train step lasts longer in some epochs."""

    epoch = 0

    def train_step(self, data):
        time.sleep(0.03 if self.epoch in slow_epochs else 0.001)
        return super().train_step(data)


class Recorder(keras.callbacks.Callback):
    """A callback that records the batches of each epoch, and may stop training."""

    def __init__(self, stop=None):
        super().__init__()
        self.stop, self.begun, self.ended = stop, [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.model.epoch = epoch
        self.begun.append([])
        self.ended.append([])

    def on_train_batch_begin(self, batch, logs=None):
        self.begun[-1].append(batch)

    def on_train_batch_end(self, batch, logs=None):
        self.ended[-1].append(batch)
        if len(self.ended) == 2 and batch == self.stop:
            self.model.stop_training = True


keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(8 * BATCHES, 4)).astype(np.float32)
model = Slow([keras.Input((4,)), keras.layers.Dense(1)])
model.compile(DistributedOptimizer(keras.optimizers.SGD(0.01)), "mse", run_eagerly=True)
recorders = [Recorder(), Recorder(), Recorder(stop=STOP)]
for recorder in recorders:
    model.fit(x, x.sum(1, keepdims=True), batch_size=8, epochs=3, verbose=0, callbacks=[recorder])
found = [{"begun": each.begun, "ended": each.ended} for each in recorders]
(Path(sys.argv[1]) / f"hooks-{rank}.json").write_text(json.dumps(found))
