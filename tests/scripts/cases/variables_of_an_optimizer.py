"""The variables of an optimizer after fit: read, kept over a fit with another one, and restored by TensorFlow."""

import keras
import numpy as np
import tensorflow as tf

from downpour import DistributedOptimizer


def made():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(1)])
    model.compile(DistributedOptimizer(keras.optimizers.Adam(0.01)), "mse")
    return model


def values(optimizer):
    return [np.copy(variable) for variable in optimizer.variables]


def fit(model, epochs=1):
    model.fit(x, x[:, :1], batch_size=8, epochs=epochs, verbose=0)


x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
model = made()
adam, sgd = model.optimizer, DistributedOptimizer(keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True))
fit(model, epochs=2)
kept = values(adam)
assert len(kept) == 10 and all(np.abs(value).max() > 0 for value in kept[2:]), kept
model.compile(sgd, "mse")
fit(model)
assert all(np.array_equal(before, now) for before, now in zip(kept, values(adam), strict=True))
model.compile(adam, "mse")
fit(model)
moved = [float(np.abs(before - now).max()) for before, now in zip(kept[2:], values(adam)[2:], strict=True)]
assert min(moved) > 0, moved
assert int(adam.iterations) == 24 and int(sgd.iterations) == 8

path = tf.train.Checkpoint(model=model, optimizer=adam).save("states/checkpoint")
kept = values(adam)
for built_first in (True, False):
    other = made()
    if built_first:
        other.optimizer.build(other.trainable_variables)
    tf.train.Checkpoint(model=other, optimizer=other.optimizer).restore(path)
    other.optimizer.build(other.trainable_variables)
    assert all(np.array_equal(a, b) for a, b in zip(kept, values(other.optimizer), strict=True)), built_first
    fit(other)
    assert int(other.optimizer.iterations) == 32

zeroed = made()
zeroed.optimizer.build(zeroed.trainable_variables)
for variable, value in zip(zeroed.optimizer.variables, kept, strict=True):
    variable.assign(value)
assert all(np.array_equal(a, b) for a, b in zip(kept, values(zeroed.optimizer), strict=True))
fit(zeroed)
assert int(zeroed.optimizer.iterations) == 32
print("RESULT", moved[:2])
