"""A callback loads weights in on_train_begin: training must begin from these."""

import keras
import numpy as np

from downpour import DistributedOptimizer


class Load(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.model.set_weights([np.full((3, 1), 5.0, "float32")])


model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
model.compile(DistributedOptimizer(keras.optimizers.SGD(1e-6)), "mse", jit_compile=False)
x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
model.fit(x, x[:, :1], batch_size=8, epochs=2, verbose=0, callbacks=[Load()])
kernel = model.get_weights()[0].ravel()
assert np.abs(kernel - 5).max() < 1e-2, f"the loaded weights were 5; after fit they are {kernel}"
print("RESULT kernel", kernel)
