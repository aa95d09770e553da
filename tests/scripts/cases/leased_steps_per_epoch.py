"""fit(LeasedDataset(...), steps_per_epoch=4): the steps of all workers together, as docs/keras.md says."""

import keras
import numpy as np

from downpour import DistributedOptimizer, LeasedDataset

x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
model.compile(DistributedOptimizer(keras.optimizers.SGD(0.01)), "mse", jit_compile=False)
model.fit(LeasedDataset(x, x[:, :1], batch_size=8), steps_per_epoch=4, epochs=2, verbose=0)
updates = int(model.optimizer.iterations)
assert updates == 8, f"two epochs of 4 steps are 8 updates; received {updates}"
print("RESULT updates", updates)
