"""A file that the script saves, then ModelCheckpoint writes over, then the script loads: all must load the new one."""

import keras
import numpy as np

from downpour import DistributedOptimizer

PATH = "stale_copy.weights.h5"
x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")


def built():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(DistributedOptimizer(keras.optimizers.SGD(0.05)), "mse", jit_compile=False)
    return model


model = built()
model.save_weights(PATH)  # where training begins
checkpoint = keras.callbacks.ModelCheckpoint(PATH, save_weights_only=True)
model.fit(x, 3 * x[:, :1], batch_size=8, epochs=3, verbose=0, callbacks=[checkpoint])
loaded = built()
loaded.load_weights(PATH)
apart = max(float(np.abs(a - b).max()) for a, b in zip(model.get_weights(), loaded.get_weights()))
assert apart < 1e-6, f"the checkpoint of the last epoch has the last weights; they are {apart} apart"
print("RESULT apart", apart)
