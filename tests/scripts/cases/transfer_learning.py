"""Transfer learning: a frozen base with batch normalisation, a head, then fine-tuning with another optimizer."""

import keras
import numpy as np

from downpour import DistributedOptimizer

keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(320, 6)).astype("float32")
y = (x[:, :1] * x[:, 1:2] > 0).astype("float32")
base = keras.Sequential(
    [keras.Input((6,)), keras.layers.Dense(16, "relu"), keras.layers.BatchNormalization()], name="base"
)
inputs = keras.Input((6,))
model = keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(base(inputs, training=False)))
base.trainable = False
frozen = [np.copy(w) for w in base.get_weights()]
model.compile(DistributedOptimizer(keras.optimizers.Adam(0.01)), "binary_crossentropy", metrics=["accuracy"])
first = model.fit(x, y, batch_size=16, epochs=3, verbose=0).history["loss"]
assert all(np.array_equal(a, b) for a, b in zip(frozen, base.get_weights())), "the base was frozen"
base.trainable = True
model.compile(DistributedOptimizer(keras.optimizers.Adam(0.003)), "binary_crossentropy", metrics=["accuracy"])
second = model.fit(x, y, batch_size=16, epochs=6, verbose=0).history["loss"]
assert np.abs(frozen[0] - base.get_weights()[0]).max() > 1e-3, "the base was unfrozen"
assert second[-1] < first[0], (first, second)
assert 0 < int(model.optimizer.iterations) <= 6 * 20, int(model.optimizer.iterations)
print("RESULT", first, second)
