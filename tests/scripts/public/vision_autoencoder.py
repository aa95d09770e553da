"""Convolutional autoencoder for image denoising (keras.io/examples/vision/autoencoder)."""

import keras
import numpy as np
from keras import layers

from downpour import DistributedOptimizer


def preprocess(array):
    array = array.astype("float32") / 255.0
    return np.reshape(array, (len(array), 28, 28, 1))


def noise(array):
    noise_factor = 0.4
    noisy_array = array + noise_factor * np.random.normal(loc=0.0, scale=1.0, size=array.shape)
    return np.clip(noisy_array, 0.0, 1.0)


# Digits are replaced by bars.
def bars(count):
    images = np.zeros((count, 28, 28), "uint8")
    for image in images:
        at = np.random.randint(4, 20)
        image[at : at + 4, 4:24] = 255
    return images


train_data, test_data = preprocess(bars(400)), preprocess(bars(80))
noisy_train_data = noise(train_data)
noisy_test_data = noise(test_data)

input = layers.Input(shape=(28, 28, 1))
x = layers.Conv2D(8, (3, 3), activation="relu", padding="same")(input)
x = layers.MaxPooling2D((2, 2), padding="same")(x)
x = layers.Conv2D(8, (3, 3), activation="relu", padding="same")(x)
x = layers.MaxPooling2D((2, 2), padding="same")(x)
x = layers.Conv2DTranspose(8, (3, 3), strides=2, activation="relu", padding="same")(x)
x = layers.Conv2DTranspose(8, (3, 3), strides=2, activation="relu", padding="same")(x)
x = layers.Conv2D(1, (3, 3), activation="sigmoid", padding="same")(x)

autoencoder = keras.Model(input, x)
autoencoder.compile(optimizer=DistributedOptimizer(keras.optimizers.Adam(0.005)), loss="binary_crossentropy")
autoencoder.fit(
    x=train_data, y=train_data, epochs=2, batch_size=32, shuffle=True, validation_data=(test_data, test_data)
)
autoencoder.predict(test_data)

# Now with noisy data as the input and clean data as the target.
history = autoencoder.fit(
    x=noisy_train_data,
    y=train_data,
    epochs=3,
    batch_size=32,
    shuffle=True,
    validation_data=(noisy_test_data, test_data),
)
losses = history.history["val_loss"]
assert np.isfinite(losses).all() and losses[-1] < 0.7
print("RESULT validation loss", losses[-1])
