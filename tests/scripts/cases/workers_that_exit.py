"""After fit, workers other than the first leave by sys.exit(0), as Horovod scripts do; the first continues with a long evaluation."""

import sys
import time

import keras
import numpy as np

import downpour
from downpour import DistributedOptimizer

x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
m = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
m.compile(DistributedOptimizer(keras.optimizers.SGD(0.1)), "mse")
m.fit(x, x[:, :1], batch_size=8, epochs=2, verbose=0)
if downpour.rank() != 0:
    sys.exit(0)
time.sleep(3)
loss = m.evaluate(x, x[:, :1], verbose=0)
m.save("m.keras")
assert int(m.optimizer.iterations) == 16
print("RESULT", loss)
