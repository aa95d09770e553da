"""A tf.data.Dataset of sparse tensors and a model that makes its weights when it is first called."""

import keras
import numpy as np
import tensorflow as tf

from downpour import DistributedOptimizer


class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, x):
        return self.dense(x)


rng = np.random.default_rng(0)
dense = (rng.random((64, 20)) * (rng.random((64, 20)) < 0.1)).astype("float32")
data = tf.data.Dataset.from_tensor_slices((tf.sparse.from_dense(dense), dense.sum(1, keepdims=True))).batch(8)
model = Net()
model.compile(DistributedOptimizer(keras.optimizers.SGD(0.1)), "mse", jit_compile=False)
losses = model.fit(data, epochs=5, verbose=0).history["loss"]
assert losses[-1] < losses[0], losses
print("RESULT losses", losses)
