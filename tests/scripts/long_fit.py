"""A fit that is long enough to be disturbed; prints the process id, and each epoch that is over."""

import os
import sys
from pathlib import Path

import keras
import numpy as np

from downpour import DistributedOptimizer
from downpour.worker import script

out, epochs = Path(sys.argv[1]), int(sys.argv[2])
rank = script.member.rank
print("PID", os.getpid(), flush=True)
rng = np.random.default_rng(2)
x = rng.normal(size=(400, 5)).astype(np.float32)
y = x @ np.arange(5, dtype=np.float32)


class Tell(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        print(f"EPOCH {epoch}", flush=True)


model = keras.Sequential([keras.layers.Input((5,)), keras.layers.Dense(1)])
model.compile(optimizer=DistributedOptimizer(keras.optimizers.SGD(0.01)), loss="mse")
history = model.fit(x, y, epochs=epochs, batch_size=8, verbose=0, callbacks=[Tell()])
(out / f"epochs-{rank}").write_text(" ".join(map(str, history.epoch)))
print("LOSSES", len(history.history["loss"]), history.history["loss"][-1], flush=True)
