"""A weight with a constraint satisfies it after training, or the script is refused."""

import keras
import numpy as np

from downpour import DistributedOptimizer

x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
constraint = keras.constraints.MaxNorm(0.5, axis=0)
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, kernel_constraint=constraint)])
model.compile(DistributedOptimizer(keras.optimizers.SGD(0.1)), "mse")
try:
    model.fit(x, 5 * x[:, :3], batch_size=16, epochs=3, verbose=0)
except Exception as error:
    assert "constraint" in str(error), error
    print("RESULT refused:", error)
else:
    norms = np.linalg.norm(model.get_weights()[0], axis=0)
    assert norms.max() <= 0.5 + 1e-5 and norms.max() > 0.4, norms
    print("RESULT norms", norms)
