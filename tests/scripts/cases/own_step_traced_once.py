"""A train step of the model's own, with two optimizers and a counter, is traced once for all calls of fit."""

import keras
import numpy as np
import tensorflow as tf

from downpour import DistributedOptimizer

traces, calls = [], []


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.a, self.b = keras.layers.Dense(3), keras.layers.Dense(1)
        self.seen = self.add_weight(shape=(), trainable=False, dtype="int32", initializer="zeros", name="seen")

    def call(self, x):
        return self.b(self.a(x))

    def compile(self, first, second):
        super().compile(optimizer=first, loss="mse")
        self.second = second

    def train_step(self, data):
        traces.append(1)
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=data[1], y_pred=self(data[0]))
        gradients = tape.gradient(loss, [*self.a.trainable_variables, *self.b.trainable_variables])
        self.optimizer.apply(gradients[:2], self.a.trainable_variables)
        self.second.apply(gradients[2:], self.b.trainable_variables)
        self.seen.assign_add(tf.shape(data[0])[0])
        return {"loss": loss}


x = np.random.RandomState(0).rand(64, 4).astype("float32")
y = x.sum(1, keepdims=True)


def error(model):
    return float(np.mean((model.predict(x, verbose=0) - y) ** 2))


model = Own()
model.compile(DistributedOptimizer("sgd"), DistributedOptimizer(keras.optimizers.Adam(0.01, clipnorm=1.0)))
model.fit(x, y, verbose=0)
first, before = len(traces), error(model)
for _ in range(6):
    model.fit(x, y, verbose=0)
assert len(traces) == first, (first, len(traces))
assert int(model.seen) == 64 * 7, int(model.seen)
assert error(model) < before, (error(model), before)
model.compile(DistributedOptimizer("sgd"), DistributedOptimizer("rmsprop"))
model.fit(x, y, verbose=0)
assert len(traces) > first, "compile must have the train step traced again"

simple = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
simple.compile(DistributedOptimizer("sgd"), "mse")
keras_step = simple.train_step


def step(data):
    calls.append(1)
    return keras_step(data)


simple.train_step = step
simple.fit(x, y, verbose=0)
count = len(calls)
simple.fit(x, y, verbose=0)
assert simple.train_step is step, "a train_step that the script has assigned must stay"
assert len(calls) == count, (count, len(calls))
print("RESULT", error(model))
