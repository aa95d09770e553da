"""A train step that clips the weights after the optimizer has moved them, as a Wasserstein critic does."""

import keras
import numpy as np
import tensorflow as tf

from downpour import DistributedOptimizer


class Clipped(keras.Model):
    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=data[1], y_pred=self(data[0], training=True))
        self.optimizer.apply(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
        for weight in self.trainable_weights:
            weight.assign(keras.ops.clip(weight, -0.1, 0.1))
        return {"loss": loss}


x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
inputs = keras.Input((4,))
model = Clipped(inputs, keras.layers.Dense(1)(inputs))
model.compile(DistributedOptimizer(keras.optimizers.SGD(0.1)), "mse")
try:
    model.fit(x, 3 * x[:, :1], batch_size=16, epochs=4, verbose=0)
except Exception as error:
    assert "assign" in str(error), error
    print("RESULT refused:", error)
else:
    largest = max(float(np.abs(w).max()) for w in model.get_weights())
    # Updates of several workers that meet may overshoot by one step of the rate before the next clipping.
    assert 0.09 < largest < 0.9, largest
    print("RESULT largest", largest)
