"""The usual learning-rate finder: a callback raises the rate at every batch, records losses and stops, then restores weights."""

import keras
import numpy as np

from downpour import DistributedOptimizer


class Finder(keras.callbacks.Callback):
    def __init__(self, lo, hi, n):
        super().__init__()
        self.lo, self.f, self.rates, self.losses, self.best = lo, (hi / lo) ** (1 / n), [], [], 1e9

    def on_train_begin(self, logs=None):
        self.w = self.model.get_weights()
        self.model.optimizer.learning_rate.assign(self.lo)

    def on_train_batch_end(self, batch, logs=None):
        lr = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self.rates.append(lr)
        self.losses.append(logs["loss"])
        self.best = min(self.best, logs["loss"])
        if batch > 5 and logs["loss"] > 4 * self.best:
            self.model.stop_training = True
            return
        keras.backend.set_value(self.model.optimizer.learning_rate, lr * self.f) if hasattr(
            keras.backend, "set_value"
        ) else self.model.optimizer.learning_rate.assign(lr * self.f)

    def on_train_end(self, logs=None):
        self.model.set_weights(self.w)


x = np.random.default_rng(0).normal(size=(800, 3)).astype("float32")
m = keras.Sequential([keras.Input((3,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
m.compile(DistributedOptimizer(keras.optimizers.SGD(0.01)), "mse")
w = m.get_weights()
f = Finder(1e-5, 30.0, 100)
m.fit(x, x.sum(1), batch_size=8, epochs=1, verbose=0, callbacks=[f])
assert all(np.array_equal(a, b) for a, b in zip(w, m.get_weights()))
assert len(f.rates) == len(f.losses) > 20
r = np.log(np.array(f.rates))
assert (np.diff(r) > 0).all(), f.rates
best = f.rates[int(np.argmin(f.losses))]
m.optimizer.learning_rate.assign(min(best / 10, 0.01))
h = m.fit(x, x.sum(1), batch_size=8, epochs=4, verbose=0)
assert h.history["loss"][-1] < h.history["loss"][0]
print("RESULT", len(f.rates), best)
