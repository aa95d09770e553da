"""A script that fails if its folder is there already, saves the best model into it and loads it again."""

import os

import keras
import numpy as np

from downpour import DistributedOptimizer

os.makedirs("out/best")
with open("out/config.txt", "x") as file:
    file.write("units 8\n")
x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
units = int(open("out/config.txt").read().split()[1])
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units), keras.layers.Dense(1)])
model.compile(DistributedOptimizer(keras.optimizers.SGD(0.01)), "mse")
best = keras.callbacks.ModelCheckpoint("out/best/model.keras", save_best_only=True, monitor="loss")
history = model.fit(x, x[:, :1], batch_size=16, epochs=3, verbose=0, callbacks=[best]).history
loaded = keras.models.load_model("out/best/model.keras")
loss = loaded.evaluate(x, x[:, :1], verbose=0)
assert loss <= history["loss"][0] and len(os.listdir("out/best")) == 1
print("RESULT loss", loss)
