"""Files that callbacks write in one `fit` are there for the script before the next, on all workers."""

import shutil
import tempfile

import keras
import numpy as np

from downpour import DistributedOptimizer

folder = tempfile.mkdtemp()
x = np.random.RandomState(0).rand(320, 4).astype("float32")
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile(optimizer=DistributedOptimizer("sgd"), loss="mse")
model.fit(x, x.sum(1), verbose=0, callbacks=[keras.callbacks.CSVLogger(f"{folder}/log.csv")])
shutil.copy(f"{folder}/log.csv", f"{folder}/first.csv")
before = int(model.optimizer.iterations)
model.fit(x, x.sum(1), epochs=2, batch_size=32, verbose=0)
updates = int(model.optimizer.iterations) - before
assert updates in (20, 10, 6, 5), updates  # bsp makes one update of the workers' gradients of a round
assert open(f"{folder}/first.csv").read().count("\n") == 2
print("RESULT updates", updates)
