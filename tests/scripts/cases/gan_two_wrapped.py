"""A GAN whose two optimizers are both distributed: both networks are trained, each by its own optimizer."""

import keras
import numpy as np
import tensorflow as tf

from downpour import DistributedOptimizer


class Gan(keras.Model):
    def __init__(self):
        super().__init__()
        self.generator = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
        self.critic = keras.Sequential([keras.Input((2,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)])

    def compile(self, critic_optimizer, generator_optimizer, **kwargs):
        super().compile(optimizer=generator_optimizer, **kwargs)
        self.critic_optimizer = critic_optimizer

    def train_step(self, real):
        noise = tf.random.normal((tf.shape(real)[0], 2))
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(self.critic(self.generator(noise))) - tf.reduce_mean(self.critic(real))
        weights = self.critic.trainable_weights
        self.critic_optimizer.apply(tape.gradient(loss, weights), weights)
        with tf.GradientTape() as tape:
            fooled = -tf.reduce_mean(self.critic(self.generator(noise)))
        weights = self.generator.trainable_weights
        self.optimizer.apply(tape.gradient(fooled, weights), weights)
        return {"critic": loss, "generator": fooled}


keras.utils.set_random_seed(0)
real = np.random.default_rng(0).normal(size=(256, 2)).astype("float32") + 3
model = Gan()
before = [np.copy(w) for w in model.get_weights()]
model.compile(
    critic_optimizer=DistributedOptimizer(keras.optimizers.Adam(0.003)),
    generator_optimizer=DistributedOptimizer(keras.optimizers.SGD(0.01)),
)
model.fit(real, batch_size=16, epochs=4, verbose=0)
moved = [float(np.abs(a - b).max()) for a, b in zip(before, model.get_weights())]
assert len(moved) == 6 and min(moved[:5]) > 1e-4, moved  # the critic's last bias has no gradient
assert int(model.optimizer.iterations) == int(model.critic_optimizer.iterations) > 10
print("RESULT moved", moved)
