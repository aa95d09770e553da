"""Lists outside of a callback that hooks of the validation fill are the same on all workers; validation every other epoch."""

import keras
import numpy as np

from downpour import DistributedOptimizer

x = np.random.default_rng(0).normal(size=(160, 4)).astype("float32")
y = x.sum(1)
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile(DistributedOptimizer(keras.optimizers.SGD(0.05)), "mse")
losses, batches = [], []


class Validation(keras.callbacks.Callback):
    def on_test_batch_end(self, batch, logs=None):
        batches.append((batch, logs["loss"]))

    def on_test_end(self, logs=None):
        losses.append(logs["loss"])


history = model.fit(
    x, y, epochs=4, batch_size=16, validation_split=0.2, validation_freq=2, verbose=0, callbacks=[Validation()]
)
assert np.allclose(losses, history.history["val_loss"]) and len(losses) == 2, (losses, history.history)
assert [number for number, _ in batches] == [0, 1, 0, 1] and np.allclose([batches[1][1], batches[3][1]], losses)
print("RESULT", min(losses))
