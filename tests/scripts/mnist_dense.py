"""The reference model on MNIST, as anybody would write it in Keras; one line is ours."""

import sys

import keras
import numpy as np

from downpour import DistributedOptimizer

samples, epochs = int(sys.argv[1]), int(sys.argv[2])
with np.load(sys.argv[3]) as data:
    x_train, y_train = data["x_train"][:samples] / 255.0, data["y_train"][:samples]
    x_test, y_test = data["x_test"] / 255.0, data["y_test"]

model = keras.Sequential(
    [
        keras.layers.Input((28, 28)),
        keras.layers.Flatten(),
        keras.layers.Dense(100, activation="sigmoid"),
        keras.layers.Dense(10, activation="softmax"),
    ]
)
model.compile(
    optimizer=DistributedOptimizer(keras.optimizers.SGD(0.1)),
    loss="sparse_categorical_crossentropy",
    metrics=["accuracy"],
)
history = model.fit(x_train, y_train, epochs=epochs, batch_size=32, validation_split=0.1)
print({name: [round(float(v), 4) for v in values] for name, values in history.history.items()})
print("test", [round(float(v), 4) for v in model.evaluate(x_test, y_test, verbose=0)])
