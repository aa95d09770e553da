"""WGAN-GP: the critic's optimizer is applied three times in a train_step, the generator's once."""

import keras
import numpy as np
import tensorflow as tf

from downpour import DistributedOptimizer


class Wgan(keras.Model):
    def __init__(self):
        super().__init__()
        self.g = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, use_bias=False)])
        self.d = keras.Sequential(
            [keras.Input((2,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1, use_bias=False)]
        )

    def compile(self, d_opt, g_opt):
        super().compile()
        self.d_opt, self.g_opt = d_opt, g_opt

    def train_step(self, real):
        n = tf.shape(real)[0]
        for _ in range(3):
            with tf.GradientTape() as tape:
                fake = self.g(tf.random.normal((n, 2)), training=True)
                with tf.GradientTape() as gp:
                    gp.watch(fake)
                    s = self.d(fake)
                norm = tf.norm(gp.gradient(s, fake), axis=1)
                loss = tf.reduce_mean(s) - tf.reduce_mean(self.d(real)) + 10 * tf.reduce_mean((norm - 1) ** 2)
            self.d_opt.apply_gradients(zip(tape.gradient(loss, self.d.trainable_variables), self.d.trainable_variables))
        with tf.GradientTape() as tape:
            gl = -tf.reduce_mean(self.d(self.g(tf.random.normal((n, 2)), training=True)))
        self.g_opt.apply_gradients(zip(tape.gradient(gl, self.g.trainable_variables), self.g.trainable_variables))
        return {"d": loss, "g": gl}


real = np.random.default_rng(0).normal(size=(128, 2)).astype("float32")
m = Wgan()
m.compile(DistributedOptimizer(keras.optimizers.Adam(1e-3, beta_1=0.5)), keras.optimizers.Adam(1e-3))
before = [np.copy(w) for w in m.get_weights()]
h = m.fit(real, batch_size=16, epochs=3, verbose=0)
assert len(h.history["d"]) == 3 and set(h.history) == {"d", "g"}
assert all(np.abs(a - b).max() > 1e-4 for a, b in zip(before, m.get_weights()))
assert int(m.d_opt.iterations) == 3 * 24 and int(m.g_opt.iterations) == 24, (
    int(m.d_opt.iterations),
    int(m.g_opt.iterations),
)
print("RESULT", int(m.d_opt.iterations), int(m.g_opt.iterations))
