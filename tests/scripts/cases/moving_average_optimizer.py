"""An optimizer with `use_ema`: the weights at the end are the averages, or the script is refused."""

import keras
import numpy as np

from downpour import DistributedOptimizer

x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="zeros")])
try:
    model.compile(DistributedOptimizer(keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.9)), "mse")
    model.fit(x, x[:, :1], batch_size=16, epochs=2, verbose=0)
except Exception as error:
    assert "use_ema" in str(error), error
    print("RESULT refused:", error)
else:
    first = float(model.get_weights()[0][0, 0])
    assert 0.2 < first < 0.99, first
    print("RESULT weight", first)
