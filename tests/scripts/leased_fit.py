"""`fit` on samples that the servers lend; writes down which samples this worker was given."""

import json
import os
import sys
from pathlib import Path

import keras
import numpy as np

from downpour import DistributedOptimizer, LeasedDataset
from downpour.worker import script

out, epochs, samples = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
rank = script.member.rank if script.member else 0
(out / f"pid-{rank}").write_text(str(os.getpid()))
x = np.arange(samples * 2, dtype=np.float32).reshape(samples, 2) / samples
y = x.sum(axis=1)


class Tell(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        print(f"EPOCH {epoch}", flush=True)


model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
model.compile(optimizer=DistributedOptimizer(keras.optimizers.SGD(0.01)), loss="mse", metrics=["mae"])
history = model.fit(LeasedDataset(x, y, batch_size=8), epochs=epochs, verbose=0, callbacks=[Tell()])
(out / f"history-{rank}.json").write_text(json.dumps(history.history, default=float))
