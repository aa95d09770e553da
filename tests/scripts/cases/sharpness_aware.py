"""Sharpness-aware minimisation: train_step moves the weights, differentiates there, moves them back, then applies."""

import keras
import numpy as np
import tensorflow as tf

from downpour import DistributedOptimizer


class Sam(keras.Model):
    def __init__(self):
        super().__init__()
        self.net = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "tanh"), keras.layers.Dense(1)])

    def call(self, x):
        return self.net(x)

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        ws = self.trainable_variables
        gs = tape.gradient(loss, ws)
        norm = tf.linalg.global_norm(gs)
        es = [g * 0.05 / (norm + 1e-12) for g in gs]
        for w, e in zip(ws, es):
            w.assign_add(e)
        with tf.GradientTape() as tape:
            loss2 = self.compute_loss(y=y, y_pred=self(x, training=True))
        gs = tape.gradient(loss2, ws)
        for w, e in zip(ws, es):
            w.assign_sub(e)
        self.optimizer.apply_gradients(zip(gs, ws))
        return {"loss": loss}


rng = np.random.default_rng(0)
x = rng.normal(size=(512, 8)).astype("float32")
y = np.tanh(x @ rng.normal(size=(8, 1))).astype("float32")
keras.utils.set_random_seed(1)
m = Sam()
m.compile(DistributedOptimizer(keras.optimizers.SGD(0.1)), "mse")
m.build((None, 8))
start = float(m.evaluate(x, y, verbose=0))
h = m.fit(x, y, batch_size=16, epochs=12, verbose=0)
first = float(m.evaluate(x, y, verbose=0))
assert int(m.optimizer.iterations) == 384, int(m.optimizer.iterations)
print("RESULT", start, first)
assert first < 0.05 * start, (start, first)
