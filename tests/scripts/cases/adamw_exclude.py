"""AdamW.exclude_from_weight_decay(var_names=[...]): the bias, whose gradient is 0, must stay 1 (or be refused)."""

import keras
import numpy as np

from downpour import DistributedOptimizer


class Shifted(keras.layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 1), initializer="ones", name="kernel")
        self.bias = self.add_weight(shape=(1,), initializer="ones", name="bias")

    def call(self, x):
        return keras.ops.matmul(x, self.kernel) + 0.0 * self.bias


adamw = keras.optimizers.AdamW(0.1, weight_decay=0.5)
adamw.exclude_from_weight_decay(var_names=["bias"])
try:
    optimizer = DistributedOptimizer(adamw)
except Exception as error:
    assert "exclude_from_weight_decay" in str(error), error
    print("RESULT refused:", error)
    raise SystemExit(0)
model = keras.Sequential([keras.Input((3,)), Shifted()])
model.compile(optimizer, "mse", jit_compile=False)
model.fit(np.ones((64, 3), "float32"), np.zeros((64, 1), "float32"), batch_size=8, epochs=2, verbose=0)
bias, kernel = float(model.layers[0].bias.numpy()[0]), float(model.layers[0].kernel.numpy().mean())
assert kernel < 0.9, f"the kernel must decay and be trained, {kernel}"
assert abs(bias - 1) < 1e-6, f"the bias must not decay; it went from 1 to {bias}"
print("RESULT bias", bias)
