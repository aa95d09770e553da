"""Two networks with an optimizer each, in a train step: `downpour run --workers 2 examples/gan.py`.

The generator learns to move Gaussian noise to where the data are, against a critic that tells both apart.
"""

import keras
import numpy as np
import tensorflow as tf

from downpour import DistributedOptimizer


class Gan(keras.Model):
    """A generator and a critic for points in the plane."""

    def __init__(self) -> None:
        """Build the generator and the critic, whose weights Keras draws."""
        super().__init__()
        self.generator = keras.Sequential([keras.Input((2,)), keras.layers.Dense(16, "tanh"), keras.layers.Dense(2)])
        self.critic = keras.Sequential([keras.Input((2,)), keras.layers.Dense(16, "tanh"), keras.layers.Dense(1)])

    def compile(self, critic_optimizer: keras.Optimizer, generator_optimizer: keras.Optimizer) -> None:
        """Use one optimizer for each network."""
        super().compile(optimizer=generator_optimizer)
        self.critic_optimizer = critic_optimizer

    def train_step(self, real: tf.Tensor) -> dict[str, tf.Tensor]:
        """Update the critic, then the generator."""
        noise = tf.random.normal((tf.shape(real)[0], 2))
        cross_entropy = tf.nn.sigmoid_cross_entropy_with_logits
        with tf.GradientTape() as tape:
            of_real, of_fake = self.critic(real), self.critic(self.generator(noise))
            critic_loss = tf.reduce_mean(cross_entropy(tf.ones_like(of_real), of_real))
            critic_loss += tf.reduce_mean(cross_entropy(tf.zeros_like(of_fake), of_fake))
        weights = self.critic.trainable_weights
        self.critic_optimizer.apply(tape.gradient(critic_loss, weights), weights)
        with tf.GradientTape() as tape:
            of_fake = self.critic(self.generator(noise))
            generator_loss = tf.reduce_mean(cross_entropy(tf.ones_like(of_fake), of_fake))
        weights = self.generator.trainable_weights
        self.optimizer.apply(tape.gradient(generator_loss, weights), weights)
        return {"critic": critic_loss, "generator": generator_loss}


keras.utils.set_random_seed(0)
data = np.random.default_rng(0).normal((3.0, -1.0), 0.5, (2048, 2)).astype("float32")
model = Gan()
model.compile(
    critic_optimizer=DistributedOptimizer(keras.optimizers.Adam(0.002, beta_1=0.0)),
    generator_optimizer=DistributedOptimizer(keras.optimizers.Adam(0.002, beta_1=0.0)),
)
model.fit(data, batch_size=32, epochs=30, verbose=0)
noise = np.random.default_rng(1).normal(size=(1000, 2)).astype("float32")
mean = np.asarray(model.generator(noise)).mean(0)
print(f"mean of the data (3.0, -1.0), of the generator ({mean[0]:.1f}, {mean[1]:.1f})")
