"""Two calls of `fit` with everything that a replay must repeat: random numbers, decisions of callbacks, files."""

import sys

import keras
import numpy as np

from downpour import DistributedOptimizer
from downpour.worker import script

kind = sys.argv[1]
random = np.random.default_rng(0)
x = random.normal(size=(480, 8)).astype("float32")
y = (x.sum(1) > 0).astype("int64")


class Undetermined(keras.callbacks.Callback):
    """Sets a learning rate that depends on nothing that is recorded."""

    def on_epoch_begin(self, epoch, logs=None):
        if kind == "undetermined":
            import secrets

            self.model.optimizer.learning_rate = 0.001 + secrets.randbelow(1000) * 1e-6


model = keras.Sequential(
    [
        keras.Input((8,)),
        keras.layers.Dense(16, activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(2, activation="softmax"),
    ]
)
optimizer = keras.optimizers.SGD(0.05, momentum=0.5) if kind == "momentum" else keras.optimizers.Adam(0.01)
model.compile(DistributedOptimizer(optimizer), "sparse_categorical_crossentropy", metrics=["accuracy"])
callbacks = [
    keras.callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=1.0),
    keras.callbacks.ModelCheckpoint("best.weights.h5", save_weights_only=True),
    Undetermined(),
]
model.fit(x, y, epochs=2, batch_size=8, validation_split=0.1, verbose=0, callbacks=callbacks)
model.load_weights("best.weights.h5")
model.fit(x, y, epochs=1, batch_size=8, verbose=0)
if script.rank() == 0:
    print("ENDED", flush=True)
