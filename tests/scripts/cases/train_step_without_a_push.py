"""A train step that applies its optimizer in every third batch: every batch of every epoch is used once, and counted."""

import keras
import numpy as np
import tensorflow as tf

from downpour import DistributedOptimizer

x = np.arange(203, dtype="float32").reshape(203, 1) / 203


class Sometimes(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.batches = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False)
        self.samples = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False)

    def call(self, inputs):
        return self.dense(inputs)

    def train_step(self, data):
        assert tf.is_tensor(data), "without y, Keras passes x itself"
        self.batches.assign_add(1)
        self.samples.assign_add(tf.shape(data)[0])
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(data) - data) ** 2)
        gradients = tape.gradient(loss, self.trainable_variables)

        def apply():
            self.optimizer.apply(gradients, self.trainable_variables)
            return 0

        tf.cond(self.batches % 3 == 0, apply, lambda: 0)
        return {"loss": loss}


model = Sometimes()
model.compile(DistributedOptimizer(keras.optimizers.SGD(0.1)), jit_compile=False)
model.fit(x, epochs=3, batch_size=8, verbose=0)
counts = int(model.batches), int(model.samples)
assert counts == (3 * 26, 3 * 203), counts
print("RESULT counts", counts)
