"""Train steps that update some of the weights, by several optimizers; also run with plain Keras.

The arguments are the path of a report and the words that choose cases; the report has the weights and the counts of
updates by case.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import downpour

X = np.random.default_rng(0).normal(size=(240, 3)).astype("float32")
Y = X.sum(1, keepdims=True)
FIT: dict[str, Any] = {"batch_size": 8, "verbose": 0, "shuffle": False}


def gradient(loss: Any, weights: Any) -> Any:
    with tf.GradientTape() as tape:
        value = loss()
    return value, tape.gradient(value, weights)


class Alternating(keras.Model):  # type: ignore[misc]
    """A generator and a critic that are trained in turns, beside an embedding that is never applied."""

    def __init__(self) -> None:
        super().__init__()
        self.g, self.d = keras.layers.Dense(3, use_bias=False), keras.layers.Dense(1, use_bias=False)
        self.never = keras.layers.Embedding(5, 4)
        self.count = keras.Variable(0, dtype="int32", trainable=False, name="count")

    def compile(self, g_optimizer: Any, d_optimizer: Any) -> None:
        super().compile()
        self.g_optimizer, self.d_optimizer = g_optimizer, d_optimizer

    def call(self, x: Any) -> Any:
        return self.d(self.g(x)) + 0.0 * tf.reduce_sum(self.never(tf.zeros((1,), "int32")))

    def train_step(self, x: Any) -> dict[str, Any]:
        def critic() -> Any:
            loss, found = gradient(lambda: tf.reduce_mean((self.d(x) - 1.0) ** 2), self.d.trainable_weights)
            self.d_optimizer.apply_gradients(zip(found, self.d.trainable_weights, strict=True))
            return loss

        def generator() -> Any:
            loss, found = gradient(lambda: tf.reduce_mean((self.d(self.g(x)) - 1.0) ** 2), self.g.trainable_weights)
            self.g_optimizer.apply(found, self.g.trainable_weights)
            return loss

        loss = tf.cond(tf.equal(self.count % 3, 0), generator, critic)
        self.count.assign_add(1)
        return {"loss": loss}


def alternating() -> tuple[keras.Model, list[Any]]:
    model = Alternating()
    model(X[:1])
    schedule = keras.optimizers.schedules.ExponentialDecay(0.05, 10, 0.9)
    optimizers = [keras.optimizers.Adam(schedule, weight_decay=0.01), keras.optimizers.AdamW(0.05, weight_decay=0.1)]
    model.compile(*map(downpour.DistributedOptimizer, optimizers))
    before = model.never.embeddings.numpy()
    for _ in range(2):
        model.fit(X, epochs=2, **FIT)
    assert (model.never.embeddings.numpy() == before).all(), "weights that are never applied must stay"
    return model, optimizers


class EveryOther(keras.Model):  # type: ignore[misc]
    """A layer that has no gradient in every other batch, with a decay that excludes biases."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = keras.layers.Dense(1), keras.layers.Dense(1)
        self.count = keras.Variable(0, dtype="int32", trainable=False, name="count")

    def call(self, x: Any) -> Any:
        return self.a(x) + self.b(x)

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data

        def applied(outputs: Any) -> Any:
            loss, found = gradient(lambda: tf.reduce_mean((outputs() - y) ** 2), self.trainable_weights)
            self.optimizer.apply(found, self.trainable_weights)
            return loss

        even = tf.equal(self.count % 2, 0)
        loss = tf.cond(even, lambda: applied(lambda: self(x)), lambda: applied(lambda: self.a(x)))
        self.count.assign_add(1)
        return {"loss": loss}


def every_other_batch() -> tuple[keras.Model, list[Any]]:
    model = EveryOther()
    model(X[:1])
    optimizer = keras.optimizers.AdamW(0.05, weight_decay=0.3, clipnorm=1.0)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model.compile(downpour.DistributedOptimizer(optimizer))
    for epochs in (2, 1):
        model.fit(X, Y, epochs=epochs, **FIT)
    return model, [optimizer]


temperature = keras.Variable(1.0, name="temperature")


class TwoNets(keras.Model):  # type: ignore[misc]
    """Two networks and a variable outside of the model, with one optimizer each, of which one is wrapped."""

    def __init__(self, optimizers: list[Any]) -> None:
        super().__init__()
        self.first, self.second = (
            keras.Sequential([
                keras.Input((3,)), keras.layers.Dense(4, "relu"), keras.layers.BatchNormalization(),
                keras.layers.Dense(1),
            ])
            for _ in range(2)
        )  # fmt: skip
        self.of_nets, self.of_temperature = {"first": optimizers[0], "second": optimizers[1]}, optimizers[2]

    def call(self, x: Any) -> Any:
        return self.first(x) + self.second(x)

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        with tf.GradientTape(persistent=True) as tape:
            one = tf.reduce_mean((self.first(x, training=True) - y) ** 2) * tf.exp(temperature)
            two = tf.reduce_mean((self.second(x, training=True) - tf.stop_gradient(self.first(x))) ** 2)
        for name, net, loss in (("first", self.first, one), ("second", self.second, two)):
            self.of_nets[name].apply(tape.gradient(loss, net.trainable_weights), net.trainable_weights)
        self.of_temperature.apply([tape.gradient(one, temperature)], [temperature])
        return {"loss": one}


def several_optimizers_and_freezing() -> tuple[keras.Model, list[Any]]:
    kinds = keras.optimizers
    optimizers = [kinds.Nadam(0.01), kinds.RMSprop(0.01, momentum=0.5), kinds.SGD(0.01)]
    model = TwoNets([downpour.DistributedOptimizer(optimizers[0]), *optimizers[1:]])
    model(X[:1])
    for trainable in (True, False, True):
        model.first.layers[0].trainable = trainable
        model.compile()
        model.fit(X, Y, epochs=1, **FIT)
    return model, optimizers


def accumulated() -> tuple[keras.Model, list[Any]]:
    """Thirty batches in an epoch, of which two wait for the next call of `fit`."""
    schedule = keras.optimizers.schedules.ExponentialDecay(0.05, 10, 0.9)
    arguments = {"weight_decay": 0.1, "clipnorm": 0.5, "loss_scale_factor": 8.0, "gradient_accumulation_steps": 4}
    optimizer = keras.optimizers.Nadam(schedule, **arguments)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)])
    model.compile(downpour.DistributedOptimizer(optimizer), "mse")
    for _ in range(2):
        model.fit(X, Y, epochs=1, **FIT)
    return model, [optimizer]


CASES = (alternating, every_other_batch, several_optimizers_and_freezing, accumulated)


def main(path: str) -> None:
    """Run all cases, and write the report on worker 0."""
    report = {}
    for case in CASES:
        keras.utils.set_random_seed(3)
        model, optimizers = case()
        weights = [w.ravel().tolist() for w in [*model.get_weights(), temperature.numpy()]]
        report[case.__name__] = {"weights": weights, "updates": [int(o.iterations) for o in optimizers]}
    if downpour.rank() == 0:
        Path(path).write_text(json.dumps(report))


main(*sys.argv[1:])
