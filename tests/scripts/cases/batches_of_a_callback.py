"""A rate by batch: a callback on every worker sets it; where batches are counted by worker, that is said."""

import math

import keras
import numpy as np

from downpour import DistributedOptimizer


class Cosine(keras.callbacks.Callback):
    step = 0

    def on_train_batch_begin(self, batch, logs=None):
        self.model.optimizer.learning_rate = 0.05 * (1 + math.cos(math.pi * self.step / self.params["steps"] / 5))
        self.step += 1


x = np.random.RandomState(0).rand(640, 4).astype("float32")
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile(optimizer=DistributedOptimizer("sgd"), loss="mse")
cosine = Cosine()
model.fit(x, x.sum(1), epochs=5, batch_size=32, verbose=0, callbacks=[cosine])
assert cosine.step == 5 * cosine.params["steps"], (cosine.step, cosine.params)
rate = float(model.optimizer.learning_rate)
assert rate < 1e-3, rate
print("RESULT batches", cosine.step, "rate", rate)
