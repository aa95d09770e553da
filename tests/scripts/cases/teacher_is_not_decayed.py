"""AdamW decays no weight that the train step never gives to the optimizer."""

import keras
import numpy as np
import tensorflow as tf

from downpour import DistributedOptimizer


class Distilled(keras.Model):
    def __init__(self):
        super().__init__()
        self.teacher, self.student = (
            keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, kernel_initializer=kernel)])
            for kernel in ("glorot_uniform", "zeros")
        )

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self.student(data[0]) - self.teacher(data[0])) ** 2)
        weights = self.student.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"loss": loss}


x = np.random.RandomState(0).randn(640, 4).astype("float32")
model = Distilled()
before = model.teacher.get_weights()[0].copy()
model.compile(optimizer=DistributedOptimizer(keras.optimizers.AdamW(0.01, weight_decay=0.1)))
loss = float(tf.reduce_mean(model.teacher(x) ** 2))
losses = [loss, *model.fit(x, x, epochs=10, batch_size=32, verbose=0).history["loss"]]
assert np.array_equal(model.teacher.get_weights()[0], before)
assert losses[-1] < 0.5 * losses[0], losses
print("RESULT losses", losses[0], losses[-1])
