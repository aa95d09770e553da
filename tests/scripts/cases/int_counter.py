"""A layer counts its training steps in an int32 weight: after fit it must be the number of updates."""

import keras
import numpy as np

from downpour import DistributedOptimizer


class Counting(keras.layers.Layer):
    def build(self, shape):
        self.seen = self.add_weight(shape=(), initializer="zeros", dtype="int32", trainable=False, name="seen")

    def call(self, x, training=False):
        if training:
            self.seen.assign_add(1)
        return x


x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
model = keras.Sequential([keras.Input((3,)), Counting(), keras.layers.Dense(1)])
model.compile(DistributedOptimizer(keras.optimizers.SGD(0.01)), "mse", jit_compile=False)
model.fit(x, x[:, :1], batch_size=8, epochs=2, verbose=0)
seen, updates = int(model.layers[0].seen.numpy()), int(model.optimizer.iterations)
assert seen == updates == 16, f"16 batches were trained on; the layer counted {seen}, the optimizer {updates}"
print("RESULT seen", seen)
