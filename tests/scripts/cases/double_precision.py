"""A model in float64: trained, or refused by name."""

import keras
import numpy as np

from downpour import DistributedOptimizer

keras.config.set_floatx("float64")
x = np.random.default_rng(0).normal(size=(256, 4))
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
try:
    model.compile(DistributedOptimizer(keras.optimizers.SGD(0.05)), "mse")
    losses = model.fit(x, x[:, :1], batch_size=16, epochs=3, verbose=0).history["loss"]
except Exception as error:
    assert "float64" in str(error), error
    print("RESULT refused:", error)
else:
    assert losses[-1] < losses[0] and model.get_weights()[0].dtype == np.float64
    print("RESULT losses", losses)
