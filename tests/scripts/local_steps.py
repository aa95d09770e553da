"""Every batch of a model whose gradient is always 1 changes its weight by -1, in whatever way the workers exchange."""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

import downpour
from downpour import DistributedOptimizer, LeasedDataset

SAMPLES, BATCH, EPOCHS = 208, 8, 3  # 26 batches, which no interval of the tests divides for one of two workers
x = np.ones((SAMPLES, 1), np.float32)
report = {"rank": downpour.rank()}


class Assigned(keras.callbacks.Callback):
    """Adds 1000 to the weight before the second epoch, on all workers."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            self.model.set_weights([weight + 1000 for weight in self.model.get_weights()])


class Seen(keras.callbacks.Callback):
    """Records the numbers of the batches."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(batch)


class OwnStep(keras.Sequential):
    """A model with a train step of its own, which applies the sum of the gradients of `each` batches."""

    each = 1

    def train_step(self, data):
        inputs, targets, _ = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x=inputs, y=targets, y_pred=self(inputs, training=True))
        (gradient,) = tape.gradient(loss, self.trainable_variables)
        summed.assign_add(gradient)
        counted.assign_add(1)
        tf.cond(counted % self.each == 0, self.applied, lambda: None)
        return {"loss": loss}

    def applied(self):
        self.optimizer.apply([tf.identity(summed)], self.trainable_variables)
        summed.assign(tf.zeros_like(summed))


class OwnSums(OwnStep):
    each = 2


summed, counted = tf.Variable([[0.0]]), tf.Variable(0)


def trained(data, kind=keras.Sequential, **arguments):
    layers = keras.layers
    model = kind([layers.Input((1,)), layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    summed.assign([[0.0]])
    counted.assign(0)
    model.compile(DistributedOptimizer(keras.optimizers.SGD(1.0)), loss=lambda y, p: keras.ops.mean(p, -1))
    seen = Seen()
    data = (data, None) if isinstance(data, LeasedDataset) else (data, np.zeros((SAMPLES, 1), np.float32))
    history = model.fit(*data, epochs=EPOCHS, verbose=0, callbacks=[Assigned(), seen], **arguments).history
    return {
        "weight": float(model.get_weights()[0].item()),
        "iterations": int(model.optimizer.iterations.numpy()),
        "epochs": len(history["loss"]),
        "seen": len(seen.batches),
        "ascending": all(b in (a + 1, 0) for a, b in zip(seen.batches, seen.batches[1:], strict=False)),
    }


report["parts"] = trained(x, batch_size=BATCH)
report["leased"] = trained(LeasedDataset(x, np.zeros((SAMPLES, 1), np.float32), batch_size=BATCH))
report["own"] = trained(x, OwnStep, batch_size=BATCH)
report["sums"] = trained(x, OwnSums, batch_size=BATCH)
with open(f"{sys.argv[1]}-{downpour.rank()}.json", "w") as file:
    json.dump(report, file)
