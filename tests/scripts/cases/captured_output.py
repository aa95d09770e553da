"""A script that reads what fit and evaluate print, by redirecting its output: every worker finds it."""

import contextlib
import io

import keras
import numpy as np

from downpour import DistributedOptimizer

x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
model.compile(DistributedOptimizer(keras.optimizers.SGD(0.05)), "mse")
captured = io.StringIO()
with contextlib.redirect_stdout(captured):
    model.summary()
    history = model.fit(x, x.sum(1), epochs=2, verbose=2)
    model.evaluate(x, x.sum(1), verbose=2)
text = captured.getvalue()
assert "Total params" in text and "Epoch 2/2" in text, text
assert f"loss: {history.history['loss'][-1]:.4f}" in text, text
print("RESULT", len(text.splitlines()))
