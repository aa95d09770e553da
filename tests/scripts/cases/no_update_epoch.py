"""Gradients summed by hand over 6 batches: an epoch without any update must be no error."""

import keras
import numpy as np
import tensorflow as tf

from downpour import DistributedOptimizer


class Summing(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.dense.build((None, 4))
        self.sums = [keras.Variable(np.zeros(v.shape, "float32"), trainable=False) for v in self.dense.weights]
        self.seen = keras.Variable(0, dtype="int32", trainable=False)

    def call(self, x):
        return self.dense(x)

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = keras.ops.mean((self(data[0], training=True) - data[1]) ** 2)
        for total, gradient in zip(self.sums, tape.gradient(loss, self.trainable_weights)):
            total.assign_add(gradient)
        self.seen.assign_add(1)
        tf.cond(self.seen.value % 6 == 0, self.update, lambda: 0)
        return {"loss": loss}

    def update(self):
        self.optimizer.apply([total / 6.0 for total in self.sums], self.trainable_weights)
        return len([total.assign(keras.ops.zeros(total.shape)) for total in self.sums])


x, model, sgd = np.ones((64, 4), "float32"), Summing(), DistributedOptimizer(keras.optimizers.SGD(0.1))
sgd.build(model.trainable_weights)
model.compile(optimizer=sgd, jit_compile=False)
model.fit(x, x[:, :1], batch_size=16, epochs=3, verbose=0)
assert int(sgd.iterations) == 2, f"12 batches make 2 updates; received {int(sgd.iterations)}"
print("RESULT updates", int(sgd.iterations))
