"""Gradient accumulation by hand in train_step, over epochs that no push ends: the last batch is smaller."""

import keras
import numpy as np
import tensorflow as tf

from downpour import DistributedOptimizer


class Acc(keras.Model):
    def __init__(self, n, *a, **k):
        super().__init__(*a, **k)
        self.n = tf.constant(n, tf.int32)
        self.i = tf.Variable(0, dtype=tf.int32, trainable=False)
        self.sums = [tf.Variable(tf.zeros_like(v), trainable=False) for v in self.trainable_variables]

    def train_step(self, data):
        x, y = data
        self.i.assign_add(1)
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        for s, g in zip(self.sums, tape.gradient(loss, self.trainable_variables)):
            s.assign_add(g)
        tf.cond(tf.equal(self.i, self.n), self.go, lambda: None)
        return {"loss": loss}

    def go(self):
        self.optimizer.apply_gradients([(s / 4.0, v) for s, v in zip(self.sums, self.trainable_variables)])
        self.i.assign(0)
        for s in self.sums:
            s.assign(tf.zeros_like(s))


inp = keras.Input((3,))
m = Acc(4, inp, keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")(inp))
m.compile(DistributedOptimizer(keras.optimizers.SGD(0.1)), lambda y, p: keras.ops.mean(p, axis=-1))
x = np.ones((236, 3), "float32")
try:
    m.fit(x, x[:, :1], batch_size=8, epochs=4, verbose=0)
except Exception as e:
    print("RESULT refused", e)
    raise SystemExit
k = float(m.get_weights()[0].mean())
# 120 batches are 30 updates of 0.1; in bsp, an update uses the gradients of up to four workers.
assert -3.0 - 1e-4 < k < -0.7 + 1e-4, k
assert abs(k * 10 - round(k * 10)) < 1e-2, k
print("RESULT", k)
