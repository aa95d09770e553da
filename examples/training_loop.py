"""A training loop of one's own with GradientTape: `downpour run --workers 2 examples/training_loop.py`."""

import keras
import numpy as np
import tensorflow as tf

import downpour

keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(4096, 8)).astype("float32")
y = np.square(x).mean(1, keepdims=True)
model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(1)])
optimizer = keras.optimizers.Adam(0.003)


@tf.function
def step(inputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Apply the gradient of one batch, and return its loss."""
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(inputs, training=True) - targets) ** 2)
    optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
    return loss


with downpour.training(model, optimizer) as job:
    for epoch in range(5):
        losses = [float(step(tf.gather(x, i), tf.gather(y, i))) for i in job.leased(len(x), batch_size=32)]
        sums = job.mean([float(np.sum(losses)), float(len(losses))])
        if job.rank == 0:
            print(f"epoch {epoch + 1}: loss {sums[0] / sums[1]:.4f}")
error = float(tf.reduce_mean((model(x) - y) ** 2))
print(f"mean squared error {error:.4f}")
