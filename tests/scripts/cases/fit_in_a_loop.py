"""One epoch at a time, in a loop: the train step is traced once."""

import keras
import numpy as np

from downpour import DistributedOptimizer

traces = []


class Counted(keras.layers.Layer):
    def call(self, x, training=None):
        if training:
            traces.append(1)
        return x


x = np.random.RandomState(0).rand(64, 4).astype("float32")
model = keras.Sequential([keras.Input((4,)), Counted(), keras.layers.Dense(1)])
model.compile(optimizer=DistributedOptimizer("sgd"), loss="mse")
model.fit(x, x.sum(1), verbose=0)
first = len(traces)
for _ in range(10):
    model.fit(x, x.sum(1), verbose=0)
assert len(traces) - first <= 1, (first, len(traces))
print("RESULT traces", first, len(traces))
