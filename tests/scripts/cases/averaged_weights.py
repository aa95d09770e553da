"""A callback that averages the weights of the epochs and sets the mean at the end, on all workers alike."""

import keras
import numpy as np

from downpour import DistributedOptimizer


class Average(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append([np.copy(w) for w in self.model.get_weights()])

    def on_train_end(self, logs=None):
        self.model.set_weights([np.mean(each, axis=0) for each in zip(*self.seen)])


x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile(DistributedOptimizer(keras.optimizers.SGD(0.05)), "mse")
average = Average()
model.fit(x, x[:, :1], batch_size=16, epochs=3, verbose=0, callbacks=[average])
means = [np.mean(each, axis=0) for each in zip(*average.seen)]
assert len(average.seen) == 3
assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(means, model.get_weights()))
print("RESULT averaged", len(average.seen))
