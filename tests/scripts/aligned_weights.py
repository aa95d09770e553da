"""A model all of whose tensors lie at multiples of 64 bytes, where TensorFlow takes memory without a copy.

Reports how far a step moved the weights, and how many snapshots of them changed afterwards.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

from downpour import DistributedOptimizer

rng = np.random.default_rng(0)
x = rng.random((1600, 64), np.float32)
y = (x @ rng.random((64, 16), np.float32)).argmax(1)


class Measured(keras.Model):
    def __init__(self):
        super().__init__()
        self.parts = [keras.layers.Dense(4096, activation="relu"), keras.layers.Dense(16, activation="softmax")]
        self.moved = keras.metrics.Mean(name="moved")

    def call(self, x):
        return self.parts[1](self.parts[0](x))

    def train_step(self, data):
        before = [tf.convert_to_tensor(v.value) for v in self.trainable_variables]
        logs = super().train_step(data)
        pairs = zip(self.trainable_variables, before, strict=True)
        self.moved.update_state(tf.linalg.global_norm([v.value - old for v, old in pairs]))
        return {**logs, "moved": self.moved.result()}


class Snapshots(keras.callbacks.Callback):
    changed = steps = 0
    taken = copied = ()

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        self.changed += any(not np.array_equal(a.numpy(), b) for a, b in zip(self.taken, self.copied, strict=True))
        self.taken = [tf.identity(v.value) for v in self.model.trainable_variables]
        self.copied = [tensor.numpy().copy() for tensor in self.taken]


keras.utils.set_random_seed(1)
model = Measured()
model(x[:1])
model.compile(DistributedOptimizer(keras.optimizers.SGD(0.1)), "sparse_categorical_crossentropy")
snapshots = Snapshots()
history = model.fit(x, y, epochs=2, batch_size=32, verbose=0, callbacks=[snapshots]).history
report = {"changed": snapshots.changed, "steps": snapshots.steps, "moved": history["moved"], "loss": history["loss"]}
with open(sys.argv[1], "w") as file:
    json.dump(report, file)
