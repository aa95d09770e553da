"""Noise that a train_step draws by tf.random: each batch of the job has noise of its own, whichever worker trains on it."""

import keras
import numpy as np
import tensorflow as tf

import downpour
from downpour import DistributedOptimizer

total, count = tf.Variable(0.0), tf.Variable(0.0)  # of this worker


class Noisy(keras.Model):
    def __init__(self):
        super().__init__()
        self.level = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
        self.drawn = keras.metrics.Mean(name="drawn")

    def call(self, x):
        return self.level(x)

    def train_step(self, x):
        noise = tf.random.normal(())
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(self(x)) * noise
        weights = self.trainable_weights
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        self.drawn.update_state(noise)
        total.assign_add(noise)
        count.assign_add(1.0)
        return {"drawn": self.drawn.result()}


model = Noisy()
model.build((None, 1))
model.compile(DistributedOptimizer(keras.optimizers.SGD(1.0)))
mean = model.fit(np.ones((256, 1), "float32"), batch_size=1, verbose=0).history["drawn"][0]
own = float(total / count)
assert (abs(own - mean) > 1e-4) == (downpour.size() > 1), f"workers must not draw the same; means {mean}, {own}"
print("RESULT", mean, own)
