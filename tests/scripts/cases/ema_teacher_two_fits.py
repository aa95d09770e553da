"""A frozen teacher that train_step moves after its student (BYOL, mean teacher, DQN): a second fit must work."""

import keras
import numpy as np
import tensorflow as tf

from downpour import DistributedOptimizer


class Taught(keras.Model):
    def __init__(self):
        super().__init__()
        self.student, self.teacher = keras.layers.Dense(1), keras.layers.Dense(1, trainable=False)
        self.student.build((None, 4))
        self.teacher.build((None, 4))
        self.teacher.set_weights(self.student.get_weights())

    def call(self, x):
        return self.student(x)

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = keras.ops.mean((self(x, training=True) - y) ** 2)
        self.optimizer.apply(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
        for slow, fast in zip(self.teacher.weights, self.student.weights):
            slow.assign(0.9 * slow + 0.1 * fast)
        return {"loss": loss}


x, model = np.random.default_rng(0).normal(size=(64, 4)).astype("float32"), Taught()
model.compile(optimizer=DistributedOptimizer(keras.optimizers.SGD(0.1)), jit_compile=False)
for _ in range(2):
    model.fit(x, x[:, :1], batch_size=8, epochs=8, verbose=0)
apart = max(float(np.abs(s - t).max()) for s, t in zip(model.student.get_weights(), model.teacher.get_weights()))
assert apart < 0.05, f"the teacher must come to its student; they are {apart} apart"
print("RESULT apart", apart)
