"""A train step that calls `optimizer.apply` gives no warning of AutoGraph and no advice about retracing."""

import contextlib
import io
import logging

import keras
import numpy as np
import tensorflow as tf

from downpour import DistributedOptimizer

words = io.StringIO()
tf.get_logger().addHandler(logging.StreamHandler(words))


class Mine(keras.Model):
    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=data[1], y_pred=self(data[0]))
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {"loss": loss}


inputs = keras.Input((4,))
model = Mine(inputs, keras.layers.Dense(1)(inputs))
model.compile(optimizer=DistributedOptimizer("sgd"), loss="mse")
x = np.ones((64, 4), "float32")
with contextlib.redirect_stderr(words):
    for _ in range(8):
        model.fit(x, np.ones((64, 1)), verbose=0)
assert "AutoGraph" not in words.getvalue() and "retracing" not in words.getvalue(), words.getvalue()
print("RESULT no warning")
