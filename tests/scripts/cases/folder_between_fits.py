"""A folder that the script makes between two calls of `fit`, as TensorFlow's tutorial on saving has it."""

import os

import keras
import numpy as np

from downpour import DistributedOptimizer

x = np.random.RandomState(0).rand(320, 4).astype("float32")
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile(optimizer=DistributedOptimizer("sgd"), loss="mse")
model.fit(x, x.sum(1), epochs=1, verbose=0)
os.mkdir("checkpoints")
before = int(model.optimizer.iterations)
model.fit(x, x.sum(1), epochs=2, batch_size=32, verbose=0)
assert os.path.isdir("checkpoints")
updates = int(model.optimizer.iterations) - before
assert updates in (20, 10, 6, 5), updates  # bsp makes one update of the workers' gradients of a round
print("RESULT updates", updates)
