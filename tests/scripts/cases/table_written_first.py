"""A script that writes a table, reads it again and trains on it: no worker sees a half-written table."""

import csv

import keras
import numpy as np

from downpour import DistributedOptimizer

rows = np.random.default_rng(0).normal(size=(4000, 5))
with open("table.csv", "w", newline="") as file:
    csv.writer(file).writerows(rows.tolist())
np.save("rows.npy", rows)
table = np.loadtxt("table.csv", delimiter=",")
assert table.shape == (4000, 5) and np.load("rows.npy").shape == (4000, 5), table.shape
x, y = table[:, :4].astype("float32"), table[:, :1].astype("float32")
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile(DistributedOptimizer(keras.optimizers.SGD(0.05)), "mse")
losses = model.fit(x, y, batch_size=50, epochs=2, verbose=0).history["loss"]
assert losses[1] < losses[0], losses
print("RESULT losses", losses)
