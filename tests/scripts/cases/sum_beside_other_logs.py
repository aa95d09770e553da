"""A train_step that returns a metric, which is a sum, beside numbers of its own: the sum is that of all workers."""

import keras
import numpy as np
import tensorflow as tf

from downpour import DistributedOptimizer


class Counting(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.dense.build((None, 3))
        self.rows = keras.metrics.Sum(name="rows")
        self.largest = keras.metrics.Mean(name="largest")

    def call(self, x):
        return self.dense(x)

    @property
    def metrics(self):
        return [self.rows, self.largest]

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(x, training=True) - y) ** 2)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        self.rows.update_state(tf.shape(x)[0])
        # "largest" names a metric, which this step leaves alone, and is another number here.
        return {"loss": loss, "norm": tf.linalg.global_norm(gradients), "rows": self.rows.result(), "largest": 7.0}


x = np.random.default_rng(0).normal(size=(203, 3)).astype("float32")
model = Counting()
model.compile(optimizer=DistributedOptimizer(keras.optimizers.SGD(0.05)))
history = model.fit(x, x.sum(1, keepdims=True), epochs=3, batch_size=16, verbose=0).history
assert history["rows"] == [203.0] * 3, history["rows"]
assert history["largest"] == [7.0] * 3, history["largest"]
assert history["loss"][-1] < history["loss"][0], history["loss"]
print("RESULT rows", history["rows"])
