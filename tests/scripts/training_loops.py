"""Training loops of the script's own: each part writes what this worker has seen into FOLDER/RANK.json."""

import json
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import downpour

seen = {}
keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
x = rng.normal(size=(640, 4)).astype("float32")
y = (x @ np.array([1.0, -2.0, 3.0, 0.5], "float32"))[:, None]


def total(weights):
    return [float(np.asarray(w).sum()) for w in weights]


# One function that is traced once and used in two trainings.
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
adam = keras.optimizers.Adam(0.02)


@tf.function
def step(inputs, targets):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(inputs) - targets) ** 2)
    adam.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
    return loss


samples, means = 0, []
for _ in range(2):
    with downpour.training(model, adam) as job:
        for _ in range(4):
            losses = []
            for indices in job.leased(len(x), batch_size=32):
                losses.append(float(step(tf.gather(x, indices), tf.gather(y, indices))))
                samples += len(indices)
            means.append(job.mean([float(np.sum(losses)), len(losses)]).tolist())
        seen["samples"] = job.mean(samples) * job.size
seen["leased"] = [means, int(adam.iterations), total(model.get_weights())]

# Two networks with an optimizer each, one of them with moving statistics.
generator = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
critic = keras.Sequential(
    [keras.Input((2,)), keras.layers.Dense(8, "tanh"), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
)
of_generator, of_critic = keras.optimizers.SGD(0.01), keras.optimizers.Adam(0.003)
before = total(generator.get_weights() + critic.get_weights())
with downpour.training([generator, critic], [of_generator, of_critic]) as job:
    for indices in job.leased(256, batch_size=16):
        real = tf.gather(x[:, :2], indices) + 3.0
        for network, optimizer in ((critic, of_critic), (generator, of_generator)):
            with tf.GradientTape() as tape:
                fake = generator(tf.random.normal(real.shape))
                loss = tf.reduce_mean(critic(fake, training=True)) - tf.reduce_mean(critic(real, training=True))
                loss = loss if network is critic else -tf.reduce_mean(critic(fake, training=True))
            weights = network.trainable_variables
            optimizer.apply(tape.gradient(loss, weights), weights)
after = total(generator.get_weights() + critic.get_weights())
seen["gan"] = [int(of_generator.iterations), int(of_critic.iterations), after]
seen["gan_moved"] = [a != b for a, b in zip(before, after, strict=True)]

# `train_on_batch` of a compiled model, with a schedule.
compiled = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
compiled.compile(keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.05, 10, 0.9)), "mse")
with downpour.training(compiled, compiled.optimizer) as job:
    first = compiled.evaluate(x, y, verbose=0)
    for _ in range(3):
        for indices in job.leased(len(x), batch_size=32):
            compiled.train_on_batch(x[indices], y[indices])
    last = job.mean(compiled.evaluate(x, y, verbose=0))
seen["train_on_batch"] = [int(compiled.optimizer.iterations), total(compiled.get_weights())]
seen["learned"] = last < 0.2 * first

# `fit` continues with the optimizer of a loop.
fitted = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
fitted.compile(downpour.DistributedOptimizer(keras.optimizers.Adam(0.01)), "mse")
with downpour.training(fitted, fitted.optimizer) as job:
    for indices in job.leased(len(x), batch_size=32):
        fitted.train_on_batch(x[indices], y[indices])
fitted.fit(x, y, batch_size=32, epochs=2, verbose=0)
seen["then_fit"] = [int(fitted.optimizer.iterations), total(fitted.get_weights())]

# Variables without a model, and a rate that the loop assigns.
variable = keras.Variable(np.zeros(3, "float32"))
sgd = keras.optimizers.SGD(1.0)
with downpour.training([variable], sgd) as job:
    job.barrier()
    for rate in (1.0, 0.0, 0.5):
        sgd.learning_rate = rate
        job.barrier()
        for _ in range(4 // job.size):
            sgd.apply([tf.ones(3)], [variable])
        job.barrier()
seen["variable"] = np.asarray(variable).tolist()  # 4 · (1.0 + 0.0 + 0.5) less than 0, however many workers there are

# What is refused, and an error of the last worker.
errors = {}
try:
    with downpour.training([variable], sgd) as job:
        sgd.apply([tf.ones(3)], [variable])
        variable.assign([9.0, 9.0, 9.0])
        job.barrier()
except Exception as error:
    errors["assigned"] = [type(error).__name__, str(error)]
try:
    with downpour.training([variable], sgd) as job:
        for _ in job.leased(64, batch_size=8):
            pass
except Exception as error:
    errors["dropped"] = [type(error).__name__, str(error)]
try:
    with downpour.training([variable], sgd) as job:
        if job.rank == job.size - 1:
            raise KeyError("mine")
        job.barrier()
except KeyError as error:
    errors["raised"] = [type(error).__name__, str(error)]
seen["errors"] = errors
(Path(sys.argv[1]) / f"{downpour.rank()}.json").write_text(json.dumps(seen))
