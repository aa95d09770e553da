"""Variables of every kind: what a train step, a layer or a callback assigns to them holds on all workers."""

import copy
import json
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from downpour import DistributedOptimizer

out = Path(sys.argv[1])
x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
y = x[:, :1]
seen: dict[str, object] = {}


class Student(keras.Model):
    """A student and a moving average of it, which the train step assigns after its update."""

    def __init__(self, frozen, clip=None):
        super().__init__()
        self.student, self.teacher = keras.layers.Dense(1), keras.layers.Dense(1, trainable=not frozen)
        self.student.build((None, 4))
        self.teacher.build((None, 4))
        self.teacher.set_weights(self.student.get_weights())
        self.clip = clip

    def call(self, inputs):
        return self.student(inputs)

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = keras.ops.mean((self(data[0], training=True) - data[1]) ** 2)
        weights = self.student.trainable_weights
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        for slow, fast in zip(self.teacher.weights, self.student.weights, strict=True):
            slow.assign(0.8 * slow + 0.2 * fast)
        if self.clip:
            for weight in weights:
                weight.assign(keras.ops.clip(weight, -self.clip, self.clip))
        return {"loss": loss, "sub": {"half": loss / 2}}


def taught(frozen):
    model = Student(frozen)
    sgd = keras.optimizers.SGD(0.05)
    sgd.build(model.student.trainable_weights)
    model.compile(optimizer=DistributedOptimizer(sgd), jit_compile=False)
    for _ in range(2):
        history = model.fit(x, y, batch_size=8, epochs=6, verbose=0).history
    assert set(history) == {"loss", "half"}
    pairs = zip(model.student.get_weights(), model.teacher.get_weights(), strict=True)
    apart = max(float(np.abs(s - t).max()) for s, t in pairs)
    assert apart < 0.1, apart
    return [weight.tolist() for weight in model.get_weights()]


def frozen_teachers_follow():
    return taught(frozen=True)


def trainable_averages_follow():
    return taught(frozen=False)


def weights_are_clipped():
    model = Student(frozen=True, clip=0.01)
    model.compile(optimizer=DistributedOptimizer(keras.optimizers.RMSprop(0.01)), jit_compile=False)
    model.fit(x, y, batch_size=8, epochs=3, verbose=0)
    largest = max(float(np.abs(weight).max()) for weight in model.student.get_weights())
    assert largest <= 0.0100001, largest
    assert int(model.optimizer.iterations) == 24
    return [weight.tolist() for weight in model.get_weights()]


class Counts(keras.layers.Layer):
    def build(self, shape):
        self.seen = self.add_weight(shape=(2,), initializer="zeros", dtype="int64", trainable=False, name="seen")
        self.begun = self.add_weight(shape=(), initializer="zeros", dtype="bool", trainable=False, name="begun")
        self.fixed = self.add_weight(shape=(), initializer="zeros", dtype="int32", trainable=False, name="fixed")

    def call(self, inputs, training=False):
        if training:
            self.seen.assign_add([1, 2])
            self.begun.assign(True)
        return inputs


def counters_count_all_batches():
    model = keras.Sequential([keras.Input((4,)), Counts(), keras.layers.Dense(1)])
    model.compile(DistributedOptimizer(keras.optimizers.SGD(0.01)), "mse", jit_compile=False)
    layer = model.layers[0]
    mark = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: layer.fixed.assign(5 + epoch))
    for _ in range(2):
        model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[mark])
    assert layer.seen.numpy().tolist() == [32, 64] and bool(layer.begun.numpy()) and int(layer.fixed.numpy()) == 6
    return int(model.optimizer.iterations)


def checkpoints_have_moments():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(DistributedOptimizer(keras.optimizers.Adam(0.01)), "mse", jit_compile=False)
    path = out / "moments.keras"
    model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[keras.callbacks.ModelCheckpoint(path)])
    loaded = keras.models.load_model(path)
    saved = int(loaded.optimizer.iterations)  # updates: within fit, bsp counts one for the batches of both workers
    assert saved in (16, 8)
    moments = [np.abs(v.numpy()).max() for v in loaded.optimizer.variables[2:]]
    assert min(moments) > 0, moments
    loaded.fit(x, y, batch_size=8, epochs=1, verbose=0)  # it trains together with the other workers
    assert int(loaded.optimizer.iterations) == saved + 8
    return [weight.tolist() for weight in loaded.get_weights()]


def copies_train_together():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(DistributedOptimizer(keras.optimizers.Adam(0.01)), "mse", jit_compile=False)
    model.fit(x, y, batch_size=8, epochs=1, verbose=0)
    other = copy.deepcopy(model)
    other.fit(x, y, batch_size=8, epochs=1, verbose=0)
    clone = keras.models.clone_model(model)
    clone.fit(x, y, batch_size=8, epochs=1, verbose=0)
    assert int(other.optimizer.iterations) == 16
    return [weight.tolist() for weight in (*other.get_weights(), *clone.get_weights())]


class ClipsEveryBatch(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        self.model.set_weights([np.clip(weight, -0.02, 0.02) for weight in self.model.get_weights()])


def callbacks_assign_every_batch():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(DistributedOptimizer(keras.optimizers.SGD(0.1)), "mse", jit_compile=False)
    model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[ClipsEveryBatch()])
    largest = max(float(np.abs(weight).max()) for weight in model.get_weights())
    assert largest <= 0.0200001, largest
    return [weight.tolist() for weight in model.get_weights()]


def states_between_batches_are_refused():
    layers = [keras.Input(batch_shape=(8, 1, 1)), keras.layers.GRU(2, stateful=True), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(DistributedOptimizer("sgd"), "mse", jit_compile=False)
    try:
        model.fit(x[:, :1, None], y, batch_size=8, verbose=0)
    except Exception as error:
        return str(error)
    raise AssertionError("a stateful layer must be refused")


CASES = (
    frozen_teachers_follow, trainable_averages_follow, weights_are_clipped, counters_count_all_batches,
    checkpoints_have_moments, copies_train_together, callbacks_assign_every_batch, states_between_batches_are_refused,
)  # fmt: skip
for case in CASES:
    seen[case.__name__] = case()
print("SEEN", json.dumps(seen, default=float))
