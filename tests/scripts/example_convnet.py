"""A small convolutional network on part of MNIST, one-hot labels, Dropout; one line is ours."""

import sys

import keras
import numpy as np
from keras import layers

from downpour import DistributedOptimizer

with np.load(sys.argv[1]) as data:
    x_train, y_train = data["x_train"][:6000], keras.utils.to_categorical(data["y_train"][:6000], 10)
    x_test, y_test = data["x_test"][:2000], keras.utils.to_categorical(data["y_test"][:2000], 10)
x_train, x_test = (np.expand_dims(x.astype("float32") / 255, -1) for x in (x_train, x_test))

model = keras.Sequential(
    [
        keras.Input((28, 28, 1)),
        layers.Conv2D(16, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(32, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dropout(0.5),
        layers.Dense(10, activation="softmax"),
    ]
)
model.compile(loss="categorical_crossentropy", optimizer=DistributedOptimizer("adam"), metrics=["accuracy"])
model.fit(x_train, y_train, batch_size=64, epochs=2, validation_split=0.1, verbose=2)
loss, accuracy = model.evaluate(x_test, y_test, verbose=0)
print("ACCURACY", accuracy)
