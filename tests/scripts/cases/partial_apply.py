"""A train_step that applies half of the weights only: the other half must stay, although Adam has moments for it."""

import keras
import numpy as np
import tensorflow as tf

from downpour import DistributedOptimizer


class Halves(keras.Model):
    only_a = False

    def __init__(self):
        super().__init__()
        self.a, self.b = keras.layers.Dense(1, use_bias=False), keras.layers.Dense(1, use_bias=False)

    def call(self, x):
        return self.a(x) + self.b(x)

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = keras.ops.mean((self(x, training=True) - y) ** 2)
        weights = self.a.trainable_weights if self.only_a else self.trainable_weights
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        return {"loss": loss}


x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
model, adam = Halves(), DistributedOptimizer(keras.optimizers.Adam(0.05))
model(x[:1])
for model.only_a in (False, True):
    model.compile(optimizer=adam, jit_compile=False)
    before = model.b.kernel.numpy()
    model.fit(x, 5 * x[:, :1], batch_size=8, epochs=1, verbose=0)
moved = float(np.abs(model.b.kernel.numpy() - before).max())
assert moved == 0.0, f"what the optimizer is not given must not move; it moved by {moved}"
print("RESULT moved", moved)
