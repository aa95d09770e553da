"""A metric that counts in an integer variable has the count of all workers' samples."""

import keras
import numpy as np

from downpour import DistributedOptimizer


class Seen(keras.metrics.Metric):
    def __init__(self, name="seen"):
        super().__init__(name=name)
        self.count = self.add_weight(shape=(), dtype="int32", initializer="zeros", name="count")

    def update_state(self, y, guess, sample_weight=None):
        self.count.assign_add(keras.ops.shape(y)[0])

    def result(self):
        return keras.ops.cast(self.count, "float32")


x = np.random.default_rng(0).normal(size=(250, 4)).astype("float32")
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile(DistributedOptimizer(keras.optimizers.SGD(0.01)), "mse", metrics=[Seen()])
seen = model.fit(x, x[:, :1], batch_size=16, epochs=2, verbose=0).history["seen"]
assert seen == [250, 250], seen
print("RESULT seen", seen)
