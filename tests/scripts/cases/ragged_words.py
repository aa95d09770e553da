"""Ragged inputs of a model that is not built before `fit`."""

import keras
import numpy as np
import tensorflow as tf

from downpour import DistributedOptimizer


class Words(keras.Model):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = keras.layers.Embedding(20, 4), keras.layers.Dense(1)

    def call(self, words):
        dense = words.to_tensor(shape=(None, 8)) if isinstance(words, tf.RaggedTensor) else words
        return self.head(tf.reduce_mean(self.embedding(dense), axis=1))


rng = np.random.default_rng(0)
words = tf.ragged.constant([rng.integers(1, 20, rng.integers(1, 9)).tolist() for _ in range(128)])
y = np.array([float(3 in row) for row in words.to_list()], "float32")[:, None]
data = tf.data.Dataset.from_tensor_slices((words, y)).batch(16)
model = Words()
model.compile(DistributedOptimizer(keras.optimizers.Adam(0.05)), "mse")
losses = model.fit(data, epochs=4, verbose=0).history["loss"]
assert losses[-1] < losses[0], losses
print("RESULT losses", losses)
