"""Gradients that are accumulated over four batches: as many updates as Keras makes, or a refusal."""

import keras
import numpy as np

from downpour import DistributedOptimizer

x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
try:
    model.compile(DistributedOptimizer(keras.optimizers.SGD(0.05, gradient_accumulation_steps=4)), "mse")
    losses = model.fit(x, x[:, :1], batch_size=8, epochs=4, verbose=0).history["loss"]
except Exception as error:
    assert "gradient_accumulation_steps" in str(error), error
    print("RESULT refused:", error)
else:
    assert losses[-1] < losses[0], losses
    print("RESULT losses", losses)
