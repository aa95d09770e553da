"""What a train function that is traced once depends on may change between two calls of fit."""

import gc

import keras
import numpy as np
import tensorflow as tf

from downpour import DistributedOptimizer, LeasedDataset

traces, drawn = [], []


@keras.saving.register_keras_serializable()
class Noisy(keras.layers.Layer):
    """Records the random numbers of every step in a training."""

    def build(self, shape):
        self.last = self.add_weight(shape=(), trainable=False, initializer="zeros", name="last")

    def call(self, x, training=None):
        if training:
            traces.append(1)
            self.last.assign(tf.random.uniform(()))
        return x


def build():
    first = keras.layers.Dense(4)
    model = keras.Sequential([keras.Input((4,)), first, Noisy(), keras.layers.Dropout(0.1), keras.layers.Dense(1)])
    model.compile(optimizer=DistributedOptimizer(keras.optimizers.SGD(0.01)), loss="mse")
    return model, first


x = np.random.RandomState(0).rand(64, 4).astype("float32")
y = x.sum(1, keepdims=True)
model, first = build()


def traced(*args, **kwargs):
    before = len(traces)
    model.fit(*args, verbose=0, **kwargs)
    return len(traces) - before


traced(x, y)
values = []
for _ in range(4):
    assert traced(x, y) == 0
    values.append(float(model.layers[1].last.value))
    model.evaluate(x, y, verbose=0)
    model.predict(x, verbose=0)
assert len(set(values)) == 4, f"a step must draw new random numbers in every call of fit; it drew {values}"

assert traced(LeasedDataset(x, y, 8)) > 0, "leased batches need a step of their own"
assert traced(LeasedDataset(x, y, 8)) == 0
assert traced(LeasedDataset(x, y, 8), epochs=2) == 0
assert traced(x, y) > 0

first.trainable = False
kernel = first.kernel.numpy().copy()
assert traced(x, y) > 0
assert np.array_equal(kernel, first.kernel.numpy()), "a frozen layer must stay"
first.trainable = True
assert traced(x, y) > 0
assert not np.array_equal(kernel, first.kernel.numpy()), "a layer that is trainable again must be trained"
assert traced(x, y) == 0

model.compile(optimizer=model.optimizer, loss="mae")
assert traced(x, y) > 0
assert traced(x, y) == 0
model.compile(optimizer=DistributedOptimizer("adam"), loss="mse")
before = first.kernel.numpy().copy()
assert traced(x, y) > 0
assert int(model.optimizer.iterations) > 0 and not np.array_equal(before, first.kernel.numpy())

try:
    model.train_on_batch(x, y)
    raise AssertionError("train_on_batch outside of a training must be refused")
except RuntimeError as error:
    assert "fit" in str(error), error
traced(x, y)
assert traced(x, y) == 0

model.save("m.keras")
loaded = keras.models.load_model("m.keras")
assert loaded.predict(x, verbose=0).shape == (64, 1)
assert not {"train_step", "evaluate", "_get_metrics_result_or_logs"} & set(vars(model))
other, _ = build()
other.fit(x, y, verbose=0)
assert traced(x, y) == 0, "another model must not matter"
model.run_eagerly = True
eager = traced(x, y, batch_size=8)
assert eager > 1, eager
model.run_eagerly = False
traced(x, y)
assert traced(x, y, sample_weight=np.ones(64, "float32")) > 0
assert traced(x, y, sample_weight=np.ones(64, "float32")) == 0
del other
gc.collect()
print("RESULT", values)
