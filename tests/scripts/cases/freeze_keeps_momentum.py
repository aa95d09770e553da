"""Freeze a layer, compile with the same optimizer, fit on: the momentum of what is left must go on."""

import keras
import numpy as np

from downpour import DistributedOptimizer

x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
a, b = keras.layers.Dense(4), keras.layers.Dense(1)
model, sgd = keras.Sequential([keras.Input((6,)), a, b]), DistributedOptimizer(keras.optimizers.SGD(0.01, momentum=0.9))
model.compile(sgd, "mse", jit_compile=False)
model.fit(x, 3 * x.sum(1, keepdims=True), batch_size=8, epochs=1, verbose=0)
a.trainable = False
model.compile(sgd, "mse", jit_compile=False)
before = b.kernel.numpy()
# Weights of 0: every gradient is 0, so that only momentum moves the kernel.
model.fit(x, x[:, :1], sample_weight=np.zeros(64, "float32"), batch_size=8, epochs=1, verbose=0)
moved = float(np.abs(b.kernel.numpy() - before).max())
assert moved > 1e-4, f"momentum must carry the kernel on when another layer is frozen; it moved by {moved}"
print("RESULT moved", moved)
