"""A scheduler whose first epoch has almost no rate: no push of that epoch moves the weights."""

import keras
import numpy as np

from downpour import DistributedOptimizer

x = np.random.default_rng(0).normal(size=(320, 4)).astype("float32")
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile(DistributedOptimizer(keras.optimizers.SGD(1.0)), "mse")
before = [np.copy(w) for w in model.get_weights()]
seen = []
look = keras.callbacks.LambdaCallback(
    on_epoch_end=lambda epoch, logs: seen.append([np.copy(w) for w in model.get_weights()])
)
rate = keras.callbacks.LearningRateScheduler(lambda epoch: (1e-9, 0.05, 0.01)[epoch])
history = model.fit(x, x[:, :1], batch_size=16, epochs=3, verbose=0, callbacks=[rate, look]).history
assert max(np.abs(a - b).max() for a, b in zip(before, seen[0])) < 1e-5
assert max(np.abs(a - b).max() for a, b in zip(before, seen[1])) > 1e-3
assert np.allclose(history["learning_rate"], [1e-9, 0.05, 0.01]), history
print("RESULT", history["learning_rate"])
