"""The reference model on MNIST: `downpour run --workers 2 examples/mnist_dense.py`, or `python` for one process."""

from importlib import resources

import keras
import numpy as np

from downpour import DistributedOptimizer

# `keras.datasets.mnist.load_data()` gives the same arrays, from the network.
with np.load(str(resources.files("downpour") / "worker" / "data" / "mnist.npz")) as data:
    x_train, y_train = data["x_train"] / 255.0, data["y_train"]
    x_test, y_test = data["x_test"] / 255.0, data["y_test"]

model = keras.Sequential(
    [
        keras.Input((28, 28)),
        keras.layers.Flatten(),
        keras.layers.Dense(100, activation="sigmoid"),
        keras.layers.Dense(10, activation="softmax"),
    ]
)
optimizer = DistributedOptimizer(keras.optimizers.SGD(0.1))
model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x_train, y_train, epochs=3, batch_size=32, validation_split=0.1, verbose=2)
loss, accuracy = model.evaluate(x_test, y_test, verbose=0)
print(f"test accuracy {accuracy:.4f}")
