"""Customizing what happens in fit() with TensorFlow (keras.io/guides/custom_train_step_in_tensorflow)."""

import keras
import numpy as np
import tensorflow as tf

from downpour import DistributedOptimizer


class CustomModel(keras.Model):
    def train_step(self, data):
        if len(data) == 3:
            x, y, sample_weight = data
        else:
            sample_weight = None
            x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(y=y, y_pred=y_pred, sample_weight=sample_weight)
        trainable_vars = self.trainable_variables
        gradients = tape.gradient(loss, trainable_vars)
        self.optimizer.apply(gradients, trainable_vars)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred, sample_weight=sample_weight)
        return {m.name: m.result() for m in self.metrics}

    def test_step(self, data):
        x, y = data
        y_pred = self(x, training=False)
        loss = self.compute_loss(y=y, y_pred=y_pred)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred)
        return {m.name: m.result() for m in self.metrics}


inputs = keras.Input(shape=(32,))
outputs = keras.layers.Dense(1)(inputs)
model = CustomModel(inputs, outputs)
model.compile(optimizer=DistributedOptimizer(keras.optimizers.Adam(0.01)), loss="mse", metrics=["mae"])
x = np.random.random((512, 32))
y = x @ np.random.random((32, 1))
first = model.fit(x, y, epochs=3)
sw = np.random.random((512, 1))
second = model.fit(x, y, sample_weight=sw, epochs=3)
scores = model.evaluate(x, y)


class LowLevel(keras.Model):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.mae_metric = keras.metrics.MeanAbsoluteError(name="mae")
        self.loss_fn = keras.losses.MeanSquaredError()

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.loss_fn(y, y_pred)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        self.loss_tracker.update_state(loss)
        self.mae_metric.update_state(y, y_pred)
        return {"loss": self.loss_tracker.result(), "mae": self.mae_metric.result()}

    @property
    def metrics(self):
        return [self.loss_tracker, self.mae_metric]


inputs = keras.Input(shape=(32,))
model = LowLevel(inputs, keras.layers.Dense(1)(inputs))
model.compile(optimizer=DistributedOptimizer(keras.optimizers.Adam(0.01)))
third = model.fit(x, y, epochs=3)
assert third.history["mae"][-1] < third.history["mae"][0]
assert first.history["loss"][-1] < first.history["loss"][0]
print("RESULT losses", first.history["loss"][-1], second.history["loss"][-1], third.history["loss"][-1])
