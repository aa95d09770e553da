"""Trains with momentum for two epochs, on the data of the path that is given."""

import sys

import keras
import numpy as np

from downpour import DistributedOptimizer

with np.load(sys.argv[1]) as data:
    x, y = data["x_train"][:2000].reshape(2000, -1).astype("float32") / 255, data["y_train"][:2000]

model = keras.Sequential([keras.Input((784,)), keras.layers.Dense(10, activation="softmax")])
model.compile(DistributedOptimizer(keras.optimizers.SGD(0.05, momentum=0.9)), "sparse_categorical_crossentropy")
history = model.fit(x, y, epochs=2, batch_size=50, verbose=0)
assert history.history["loss"][-1] < history.history["loss"][0]
print("RESULT trained")
