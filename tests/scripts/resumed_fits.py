"""Calls of `fit` that a test kills and resumes; each worker writes down what it has after every call."""

import hashlib
import json
import sys
import time
from pathlib import Path

import keras
import numpy as np

from downpour import DistributedOptimizer, LeasedDataset
from downpour.worker import script

out, kind = Path(sys.argv[1]), sys.argv[2]
rank = script.member.rank if script.member else 0
keras.utils.set_random_seed(3)
rng = np.random.default_rng(5)


class Slow(keras.callbacks.Callback):
    def __init__(self, name):
        super().__init__()
        self.name, self.seen = name, []

    def on_epoch_begin(self, epoch, logs=None):
        print(f"EPOCH {self.name} {epoch}", flush=True)

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(sorted(logs))

    def on_train_batch_end(self, batch, logs=None):
        time.sleep(0.01)


def note(name, model, history, callbacks, optimizers):
    weights = b"".join(np.asarray(v).tobytes() for v in model.get_weights())
    line = {
        "name": name, "weights": hashlib.sha256(weights).hexdigest(), "history": history.history,
        "epochs": history.epoch, "seen": callbacks[0].seen,
        "iterations": [int(each.iterations.numpy()) for each in optimizers],
        "rates": [float(each.learning_rate.numpy()) for each in optimizers],
    }  # fmt: skip
    with (out / f"notes-{rank}.jsonl").open("a") as file:
        file.write(json.dumps(line, default=float) + "\n")


def convnet():
    x = rng.normal(size=(512, 8, 8, 1)).astype(np.float32)
    y = (x.mean(axis=(1, 2, 3)) > 0).astype(np.int32)
    model = keras.Sequential(
        [
            keras.layers.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(2),
        ]
    )
    optimizer = DistributedOptimizer(keras.optimizers.Adam(0.01))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])
    for name in ("first", "second"):
        callbacks = [
            Slow(name),
            keras.callbacks.ReduceLROnPlateau(monitor="val_loss", factor=0.5, patience=1),
            keras.callbacks.EarlyStopping(monitor="val_loss", patience=50, restore_best_weights=True),
            keras.callbacks.ModelCheckpoint(str(out / f"{name}.keras"), save_best_only=True),
            keras.callbacks.CSVLogger(str(out / f"{name}.csv")),
        ]
        data = LeasedDataset(x, y, batch_size=16)
        history = model.fit(data, epochs=5, validation_data=(x, y), verbose=0, callbacks=callbacks)
        note(name, model, history, callbacks, [optimizer])


def freezing():
    x = rng.normal(size=(512, 6)).astype(np.float32)
    y = x.sum(axis=1, keepdims=True)
    model = keras.Sequential(
        [keras.layers.Input((6,)), keras.layers.Dense(8, activation="relu", name="base"), keras.layers.Dense(1)]
    )
    for name, frozen in (("first", False), ("second", True)):
        model.get_layer("base").trainable = not frozen
        optimizer = DistributedOptimizer(keras.optimizers.SGD(0.01, momentum=0.9))
        model.compile(optimizer=optimizer, loss="mse")
        callbacks = [Slow(name)]
        history = model.fit(LeasedDataset(x, y, batch_size=16), epochs=5, verbose=0, callbacks=callbacks)
        note(name, model, history, callbacks, [optimizer])


class GAN(keras.Model):
    def __init__(self):
        super().__init__()
        self.generator = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(6)])
        self.critic = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(1)])
        self.tracker = keras.metrics.Mean(name="d_loss")

    def compile(self, d_optimizer, g_optimizer):
        super().compile(optimizer=d_optimizer)
        self.g_optimizer = g_optimizer

    def call(self, x):
        return self.critic(x)

    def train_step(self, real):
        import tensorflow as tf

        noise = tf.random.normal((tf.shape(real)[0], 4))
        with tf.GradientTape() as tape:
            d_loss = tf.reduce_mean(self.critic(self.generator(noise))) - tf.reduce_mean(self.critic(real))
            d_loss += 0.1 * tf.add_n([tf.nn.l2_loss(v) for v in self.critic.trainable_variables])
        variables = self.critic.trainable_variables
        self.optimizer.apply(tape.gradient(d_loss, variables), variables)
        with tf.GradientTape() as tape:
            g_loss = -tf.reduce_mean(self.critic(self.generator(noise)))
        variables = self.generator.trainable_variables
        self.g_optimizer.apply(tape.gradient(g_loss, variables), variables)
        self.tracker.update_state(d_loss)
        return {"d_loss": self.tracker.result()}


def gan():
    x = rng.normal(size=(512, 6)).astype(np.float32)
    model = GAN()
    model.build((None, 6))
    ours = [DistributedOptimizer(keras.optimizers.Adam(0.001)), DistributedOptimizer(keras.optimizers.Adam(0.002))]
    model.compile(*ours)
    for name in ("first", "second"):
        callbacks = [Slow(name)]
        history = model.fit(LeasedDataset(x, batch_size=16), epochs=5, verbose=0, callbacks=callbacks)
        note(name, model, history, callbacks, ours)


{"convnet": convnet, "freezing": freezing, "gan": gan}[kind]()
