"""A split into training and test data without a seed: the same on all workers, or refused."""

import keras
import numpy as np

from downpour import DistributedOptimizer

random = np.random.RandomState(0)
x, y = random.randn(400, 100).astype("float32"), random.randint(0, 2, 400)
order = np.random.default_rng().permutation(400)  # takes its seed from the system
train, test = order[:300], order[300:]
model = keras.Sequential([keras.Input((100,)), keras.layers.Dense(128, "relu"), keras.layers.Dense(1, "sigmoid")])
model.compile(optimizer=DistributedOptimizer("adam"), loss="binary_crossentropy", metrics=["accuracy"])
try:
    model.fit(x[train], y[train], epochs=40, verbose=0)
except Exception as error:
    assert "data" in str(error) and "seed" in str(error), error
    print("RESULT refused:", error)
else:
    # The labels are noise: a worker that trained on another split would have seen most of the test data.
    accuracy = model.evaluate(x[test], y[test], verbose=0)[1]
    assert 0.3 < accuracy < 0.68, accuracy
    print("RESULT test accuracy", accuracy)
