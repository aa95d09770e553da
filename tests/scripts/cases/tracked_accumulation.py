"""Gradient accumulation in variables that the model tracks, with a counter that a second fit continues."""

import keras
import numpy as np
import tensorflow as tf

from downpour import DistributedOptimizer


class Accumulating(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
        self.dense.build((None, 3))
        self.sums = self.add_weight(name="sums", shape=(3, 1), initializer="zeros", trainable=False)
        self.seen = self.add_weight(name="seen", shape=(), dtype="int32", initializer="zeros", trainable=False)

    def call(self, x):
        return self.dense(x)

    def train_step(self, data):
        x, _ = data
        with tf.GradientTape() as tape:
            loss = keras.ops.mean(self(x, training=True))
        first, last = self.seen.value % 4 == 0, self.seen.value % 4 == 3
        gradient = tape.gradient(loss, self.dense.kernel.value)
        self.sums.assign(keras.ops.where(first, gradient, self.sums.value + gradient))
        self.seen.assign_add(1)
        tf.cond(last, lambda: self.optimizer.apply([self.sums.value / 4.0], [self.dense.kernel]), lambda: None)
        return {"loss": loss}


x, model, sgd = np.ones((80, 3), "float32"), Accumulating(), DistributedOptimizer(keras.optimizers.SGD(0.1))
sgd.build(model.trainable_weights)
model.compile(optimizer=sgd, jit_compile=False)
try:
    model.fit(x, x[:, :1], batch_size=8, epochs=3, verbose=0)
    model.fit(x, x[:, :1], batch_size=8, epochs=2, verbose=0)
except Exception as error:
    print("RESULT refused", error)
    raise SystemExit from None
k = float(model.dense.kernel.numpy().mean())
assert int(model.seen) == 50, int(model.seen)
# 50 batches are 12 updates of 0.1; in bsp, an update uses the gradients of up to four workers.
assert -1.2 - 1e-4 < k < -0.2 and abs(k * 10 - round(k * 10)) < 1e-2, k
print("RESULT", k, int(sgd.iterations))
