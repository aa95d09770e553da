"""A run folder named by the time of day, and a seed from it: all workers have the same, and load what a callback wrote."""

import datetime
import os
import time

import keras
import numpy as np

from downpour import DistributedOptimizer

np.random.seed(int(time.time() * 1000) % 2**32)
run = os.path.join("outputs", datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f"))
os.makedirs(run)
order = np.random.permutation(160)
x = np.random.default_rng(0).normal(size=(160, 4)).astype("float32")[order]
y = x.sum(1)
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile(DistributedOptimizer(keras.optimizers.SGD(0.05)), "mse")
best = os.path.join(run, "best.keras")
callbacks = [keras.callbacks.ModelCheckpoint(best, save_best_only=True, monitor="val_loss")]
history = model.fit(x, y, epochs=3, batch_size=16, validation_split=0.2, verbose=0, callbacks=callbacks)
again = keras.models.load_model(best)
loss = again.evaluate(x[128:], y[128:], verbose=0)
assert abs(loss - min(history.history["val_loss"])) < 1e-4, (loss, history.history)
with open(os.path.join(run, f"loss-{time.strftime('%Y%m%d%H%M%S')}.txt"), "w") as file:
    file.write(str(loss))
assert len(os.listdir(run)) == 2 and len(os.listdir("outputs")) == 1, os.listdir(run)
print("RESULT", loss)
