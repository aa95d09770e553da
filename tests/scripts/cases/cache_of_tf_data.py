"""A data set of tf.data that is cached in a file, which two processes must not write at once."""

import keras
import numpy as np
import tensorflow as tf

from downpour import DistributedOptimizer

x = np.random.default_rng(0).normal(size=(320, 4)).astype("float32")
data = (
    tf.data.Dataset.from_tensor_slices((x, x[:, :1]))
    .map(lambda a, b: (a * 2, b))
    .cache("cached")
    .shuffle(320)
    .batch(16)
)
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile(DistributedOptimizer(keras.optimizers.SGD(0.02)), "mse")
losses = model.fit(data, epochs=3, verbose=0).history["loss"]
assert losses[2] < losses[0], losses
print("RESULT losses", losses)
