"""Two calls of `fit`; the process of a test is killed once between them, and each worker writes what it has after."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np

from downpour import DistributedOptimizer
from downpour.worker import script

out, victim, where = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
rank = script.member.rank if script.member else 0
keras.utils.set_random_seed(3)
x = np.random.default_rng(5).normal(size=(256, 6)).astype(np.float32)
y = x.sum(axis=1, keepdims=True)
mark = f"{out}/killed-{rank}"


def exists(path):  # commands see the files of all workers at once; those that this process writes are its own at first
    return subprocess.run(["test", "-e", path]).returncode == 0


def die_once():
    if rank == victim and not exists(mark):
        subprocess.run(["touch", mark], check=True)
        os.kill(os.getpid(), signal.SIGKILL)


class Killed(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2 and where == "during":
            die_once()

    def on_train_batch_end(self, batch, logs=None):
        time.sleep(0.005)


model = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(8), keras.layers.Dense(1)])
optimizer = DistributedOptimizer(keras.optimizers.Adam(0.01))
model.compile(optimizer=optimizer, loss="mse")


def facts(history):
    weights = b"".join(np.asarray(v).tobytes() for v in model.get_weights())
    loss = model.evaluate(x, y, verbose=0)
    counts = [int(optimizer.iterations.numpy()), float(optimizer.learning_rate.numpy())]
    return [hashlib.sha256(weights).hexdigest(), loss, history.history, *counts]


scheduler = keras.callbacks.LearningRateScheduler(lambda epoch: 0.02)
first = model.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[scheduler])
if where == "between":
    die_once()
seen = [facts(first)]
if where != "after":
    seen.append(facts(model.fit(x, y, batch_size=16, epochs=4, verbose=0, callbacks=[Killed()])))
else:
    die_once()
if rank == 0:  # the job ends with the script of worker 0
    last = time.monotonic() + float(sys.argv[4])
    while not exists(f"{out}/facts-1.json") and time.monotonic() < last:
        time.sleep(0.1)
subprocess.run(["tee", f"{out}/facts-{rank}.json"], input=json.dumps(seen).encode(), check=True)
