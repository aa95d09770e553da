"""The make-or-restore pattern: a loaded model trains on with the same cluster and the same optimizer."""

import os

import keras
import numpy as np

from downpour import DistributedOptimizer

x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")


def make_or_restore():
    if os.path.exists("saved.keras"):
        return keras.models.load_model("saved.keras")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(DistributedOptimizer(keras.optimizers.Adam(0.01)), "mse")
    return model


made = []
for _ in range(2):
    model = make_or_restore()
    history = model.fit(x, x[:, :1], batch_size=16, epochs=2, verbose=0).history["loss"]
    made.append((history, int(model.optimizer.iterations)))
    model.save("saved.keras")
(first, updates), (second, total) = made
assert second[0] < first[0], made
assert total == 2 * updates, made
assert updates in (32, 16, 8), made  # bsp makes one update of the workers' gradients of a round
print("RESULT", made)
