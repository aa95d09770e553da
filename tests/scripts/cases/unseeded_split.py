"""Split drawn by default_rng() without a seed: no worker may train on what another tests on."""

import keras
import numpy as np

from downpour import DistributedOptimizer

rng = np.random.default_rng(0)
x = rng.normal(size=(2000, 60)).astype("float32")
y = rng.integers(0, 2, 2000)  # nothing to learn but the samples themselves
drawn = np.random.default_rng().permutation(2000)  # differs by process
train, test = drawn[:1000], drawn[1000:]
model = keras.Sequential(
    [keras.Input((60,)), keras.layers.Dense(256, activation="relu"), keras.layers.Dense(1, activation="sigmoid")]
)
model.compile(
    DistributedOptimizer(keras.optimizers.Adam(0.005)), "binary_crossentropy", metrics=["accuracy"], jit_compile=False
)
model.fit(x[train], y[train], batch_size=25, epochs=50, verbose=0)
seen = model.evaluate(x[train], y[train], verbose=0, return_dict=True)["accuracy"]
unseen = model.evaluate(x[test], y[test], verbose=0, return_dict=True)["accuracy"]
print("RESULT accuracy on train, test", seen, unseen)
assert unseen < 0.56, f"labels are coins: beyond 0.56 (4 sigma) test samples were trained on; accuracy {unseen}"
