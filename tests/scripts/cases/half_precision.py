"""The policy mixed_float16, which scales the loss: trained, or refused by name."""

import keras
import numpy as np

from downpour import DistributedOptimizer

keras.mixed_precision.set_global_policy("mixed_float16")
x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(1, dtype="float32")])
try:
    model.compile(DistributedOptimizer(keras.optimizers.Adam(0.01)), "mse")
    losses = model.fit(x, x[:, :1], batch_size=16, epochs=4, verbose=0).history["loss"]
except Exception as error:
    assert "mixed_float16" in str(error), error
    print("RESULT refused:", error)
else:
    assert losses[-1] < 0.8 * losses[0], losses
    print("RESULT losses", losses)
