"""copy.deepcopy and pickle of a compiled model, which Keras supports."""

import copy
import pickle

import keras
import numpy as np

from downpour import DistributedOptimizer

x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
model.compile(DistributedOptimizer(keras.optimizers.Adam(0.01)), "mse", jit_compile=False)
model.fit(x, x[:, :1], batch_size=8, epochs=1, verbose=0)
expected = model.predict(x, verbose=0)
for name, other in (("deepcopy", copy.deepcopy(model)), ("pickle", pickle.loads(pickle.dumps(model)))):
    apart = float(np.abs(other.predict(x, verbose=0) - expected).max())
    assert apart < 1e-6, f"{name} differs by {apart}"
print("RESULT copied")
