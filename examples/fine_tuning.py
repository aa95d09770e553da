"""Two calls of fit, the first with frozen layers: `downpour run --workers 2 examples/fine_tuning.py`.

The first layers learn on the digits 0 to 4. A new last layer is then trained on the digits 5 to 9 while they are
frozen, and finally all layers are trained at a lower learning rate.
"""

from importlib import resources

import keras
import numpy as np

from downpour import DistributedOptimizer

with np.load(str(resources.files("downpour") / "worker" / "data" / "mnist.npz")) as data:
    x, y = data["x_train"] / 255.0, data["y_train"].astype("int64")
    x_test, y_test = data["x_test"] / 255.0, data["y_test"].astype("int64")
low, high, test = y < 5, np.flatnonzero(y >= 5)[:4000], y_test >= 5


def compiled(model: keras.Model, learning_rate: float) -> keras.Model:
    """Compile the model with a distributed optimizer, and return it."""
    optimizer = DistributedOptimizer(keras.optimizers.Adam(learning_rate))
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


features = keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten(), keras.layers.Dense(64, "relu")])
first = compiled(keras.Sequential([features, keras.layers.Dense(5, "softmax")]), 0.001)
first.fit(x[low], y[low], epochs=1, batch_size=64, verbose=2)

features.trainable = False
second = compiled(keras.Sequential([features, keras.layers.Dense(5, "softmax")]), 0.003)
second.fit(x[high], y[high] - 5, epochs=2, batch_size=32, verbose=2)

features.trainable = True
compiled(second, 0.0005).fit(x[high], y[high] - 5, epochs=2, batch_size=32, verbose=2)
loss, accuracy = second.evaluate(x_test[test], y_test[test] - 5, verbose=0)
print(f"test accuracy {accuracy:.4f}")
