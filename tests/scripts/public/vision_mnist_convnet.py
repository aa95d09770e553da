"""Simple MNIST convnet (keras.io/examples/vision/mnist_convnet)."""

import keras
import numpy as np
from keras import layers

from downpour import DistributedOptimizer

num_classes = 10
input_shape = (28, 28, 1)

# Digits are replaced by noise around one image of each class.
rng = np.random.default_rng(1337)
prototypes = rng.random((num_classes, 28, 28))
y_train, y_test = rng.integers(0, 10, 600), rng.integers(0, 10, 100)
x_train = (255 * np.clip(prototypes[y_train] + 0.1 * rng.normal(size=(600, 28, 28)), 0, 1)).astype("uint8")
x_test = (255 * np.clip(prototypes[y_test] + 0.1 * rng.normal(size=(100, 28, 28)), 0, 1)).astype("uint8")

x_train = x_train.astype("float32") / 255
x_test = x_test.astype("float32") / 255
x_train = np.expand_dims(x_train, -1)
x_test = np.expand_dims(x_test, -1)
y_train = keras.utils.to_categorical(y_train, num_classes)
y_test = keras.utils.to_categorical(y_test, num_classes)

model = keras.Sequential(
    [
        keras.Input(shape=input_shape),
        layers.Conv2D(16, kernel_size=(3, 3), activation="relu"),
        layers.MaxPooling2D(pool_size=(2, 2)),
        layers.Conv2D(32, kernel_size=(3, 3), activation="relu"),
        layers.MaxPooling2D(pool_size=(2, 2)),
        layers.Flatten(),
        layers.Dropout(0.5),
        layers.Dense(num_classes, activation="softmax"),
    ]
)
model.summary()

batch_size = 32
epochs = 4
model.compile(
    loss="categorical_crossentropy", optimizer=DistributedOptimizer(keras.optimizers.Adam(0.002)), metrics=["accuracy"]
)
model.fit(x_train, y_train, batch_size=batch_size, epochs=epochs, validation_split=0.1)

score = model.evaluate(x_test, y_test, verbose=0)
print("Test loss:", score[0])
print("Test accuracy:", score[1])
assert score[1] > 0.8
print("RESULT test accuracy", score[1])
