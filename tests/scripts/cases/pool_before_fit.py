"""multiprocessing.Pool (fork) before, between and after fit: it must not hang."""

import multiprocessing

import keras
import numpy as np

from downpour import DistributedOptimizer


def square(number):
    return number * number


def in_processes():
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return sum(pool.map_async(square, range(100)).get(timeout=20))


x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
sums = [in_processes()]
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
model.compile(DistributedOptimizer(keras.optimizers.SGD(0.01)), "mse", jit_compile=False)


class Within(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.total = in_processes()


within = Within()
for _ in range(2):
    model.fit(x, x[:, :1], batch_size=8, epochs=1, verbose=0, callbacks=[within])
    sums += [in_processes(), within.total]
assert sums == [328350] * 5, sums
print("RESULT", sums)
