"""A split into training and test data without a seed: refused with two workers, each of which splits otherwise."""

import keras
import numpy as np

import downpour
from downpour import DistributedOptimizer

random = np.random.RandomState(0)
x, y = random.randn(400, 20).astype("float32"), random.randint(0, 2, 400)
order = np.random.default_rng().permutation(400)  # takes its seed from the system
train = order[:300]
model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1, "sigmoid")])
model.compile(optimizer=DistributedOptimizer("adam"), loss="binary_crossentropy", metrics=["accuracy"])
try:
    model.fit(x[train], y[train], epochs=2, verbose=0)
except Exception as error:
    assert "data" in str(error) and "seed" in str(error), error
    print("RESULT refused:", error)
else:
    assert downpour.size() == 1, "each worker has trained on another split"
    print("RESULT trained by one worker")
