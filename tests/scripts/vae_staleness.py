"""A variational autoencoder on MNIST, whose loss shows what staleness costs: vae_staleness.py MNIST [RATE [LATE]].

RATE is the learning rate (default 0.001). With LATE, one process applies each gradient so many steps late.
"""

import sys

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from downpour import DistributedOptimizer

path, rate, late = (*sys.argv[1:], *("0.001", "0")[len(sys.argv) - 2 :])
rate, late = float(rate), int(late)
SAMPLES, EPOCHS, BATCH = 6000, 14, 128
with np.load(path) as file:
    digits = file["x_train"][:SAMPLES].reshape(SAMPLES, 784).astype("float32") / 255


class VAE(keras.Model):
    """The model of keras.io/examples/generative/vae with dense layers."""

    def __init__(self):
        super().__init__()
        self.encoder = keras.Sequential([keras.Input((784,)), layers.Dense(256, activation="relu"), layers.Dense(4)])
        self.decoder = keras.Sequential(
            [keras.Input((2,)), layers.Dense(256, activation="relu"), layers.Dense(784, activation="sigmoid")]
        )
        self.seed_generator = keras.random.SeedGenerator(1337)
        self.loss_tracker = keras.metrics.Mean(name="loss")
        weights = self.encoder.trainable_variables + self.decoder.trainable_variables
        self.waiting = [[tf.Variable(tf.zeros(w.shape), trainable=False) for w in weights] for _ in range(late)]

    @property
    def metrics(self):
        return [self.loss_tracker]

    def train_step(self, data):
        with tf.GradientTape() as tape:
            z_mean, z_log_var = ops.split(self.encoder(data), 2, axis=1)
            epsilon = keras.random.normal(ops.shape(z_mean), seed=self.seed_generator)
            reconstruction = self.decoder(z_mean + ops.exp(0.5 * z_log_var) * epsilon)
            of_pixels = ops.mean(784 * keras.losses.binary_crossentropy(data, reconstruction))
            kl = -0.5 * ops.mean(ops.sum(1 + z_log_var - ops.square(z_mean) - ops.exp(z_log_var), axis=1))
            loss = of_pixels + kl
        weights = self.encoder.trainable_variables + self.decoder.trainable_variables
        gradients = tape.gradient(loss, weights)
        for step in self.waiting:  # each holds the gradients of an earlier step
            earlier = [tf.identity(variable) for variable in step]
            for variable, gradient in zip(step, gradients, strict=True):
                variable.assign(gradient)
            gradients = earlier
        self.optimizer.apply(gradients, weights)
        self.loss_tracker.update_state(loss)
        return {"loss": self.loss_tracker.result()}


model = VAE()
model.compile(optimizer=DistributedOptimizer(keras.optimizers.Adam(rate)))
history = model.fit(digits, batch_size=BATCH, epochs=EPOCHS, verbose=0)
print("RESULT loss", round(history.history["loss"][-1], 2))
