"""A convolutional network on MNIST with callbacks: `downpour run --workers 2 examples/mnist_convnet.py`."""

from importlib import resources

import keras
import numpy as np
from keras import layers

from downpour import DistributedOptimizer

with np.load(str(resources.files("downpour") / "worker" / "data" / "mnist.npz")) as data:
    x_train, y_train = data["x_train"][..., None].astype("float32") / 255, data["y_train"]
    x_test, y_test = data["x_test"][..., None].astype("float32") / 255, data["y_test"]

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
optimizer = DistributedOptimizer(keras.optimizers.Adam(0.001))
model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
callbacks = [
    keras.callbacks.EarlyStopping(monitor="val_loss", patience=2, restore_best_weights=True),
    keras.callbacks.ModelCheckpoint("mnist_convnet.keras", monitor="val_loss", save_best_only=True),
]
model.fit(x_train, y_train, epochs=3, batch_size=64, validation_split=0.1, callbacks=callbacks, verbose=2)
loss, accuracy = model.evaluate(x_test, y_test, verbose=0)
print(f"test accuracy {accuracy:.4f}")
