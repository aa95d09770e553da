"""The train step of Keras's guide, whose logs contain a dict of the compiled metrics."""

import keras
import numpy as np
import tensorflow as tf

from downpour import DistributedOptimizer


class Mine(keras.Model):
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            guess = self(x, training=True)
            loss = self.compute_loss(y=y, y_pred=guess)
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        for metric in self.metrics:
            metric.update_state(loss) if metric.name == "loss" else metric.update_state(y, guess)
        return {metric.name: metric.result() for metric in self.metrics}


inputs = keras.Input((4,))
model = Mine(inputs, keras.layers.Dense(1)(inputs))
model.compile(optimizer=DistributedOptimizer("adam"), loss="mse", metrics=["mae"])
x = np.random.RandomState(0).rand(320, 4).astype("float32")
history = model.fit(x, x.sum(1), epochs=2, verbose=0).history
assert history["loss"][1] < history["loss"][0], history
maes = [each["mae"] if isinstance(each, dict) else each for each in history.get("compile_metrics", history.get("mae"))]
assert len(maes) == 2 and float(maes[1]) < float(maes[0]), history
print("RESULT history", history)
