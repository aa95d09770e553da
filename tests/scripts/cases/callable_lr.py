"""learning_rate=a function of the optimizer's iterations: it must follow the updates of all (or be refused)."""

import keras
import numpy as np

from downpour import DistributedOptimizer


def of_outputs(y, outputs):  # its gradient is the mean input
    return keras.ops.mean(outputs, axis=-1)


def rate():
    return keras.ops.where(plain.iterations < 10, 0.1, 0.0)


plain = keras.optimizers.SGD(learning_rate=rate)
try:
    optimizer = DistributedOptimizer(plain)
except Exception as error:
    assert "learning_rate" in str(error), error
    print("RESULT refused:", error)
    raise SystemExit(0)
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
model.compile(optimizer, loss=of_outputs, jit_compile=False)
x = np.ones((160, 3), "float32")
model.fit(x, x[:, :1], batch_size=8, epochs=1, verbose=0)
kernel = float(model.get_weights()[0].mean())
# 20 updates, of which the first ten have a rate: 10 x 0.1; a few more where some are under way.
assert abs(kernel + 1.0) < 0.45, f"the kernel must be near -1; it is at {kernel}"
print("RESULT kernel", kernel)
