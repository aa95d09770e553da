"""A plain optimizer beside the distributed one: a probe on an encoder trains, or the script is refused."""

import keras
import numpy as np
import tensorflow as tf

from downpour import DistributedOptimizer


class Probed(keras.Model):
    def __init__(self):
        super().__init__()
        self.encoder, self.probe = (keras.Sequential([keras.Input((4,)), keras.layers.Dense(n)]) for n in (4, 1))
        self.own = keras.optimizers.SGD(0.05)

    def train_step(self, data):
        losses = {}
        for name, net, optimizer in (("loss", self.encoder, self.optimizer), ("probe", self.probe, self.own)):
            with tf.GradientTape() as tape:
                out = net(data[0]) if name == "loss" else net(self.encoder(data[0]))
                losses[name] = tf.reduce_mean((out - data[0 if name == "loss" else 1]) ** 2)
            weights = net.trainable_weights
            optimizer.apply_gradients(zip(tape.gradient(losses[name], weights), weights, strict=True))
        return losses


keras.utils.set_random_seed(0)
x = np.random.RandomState(0).randn(640, 4).astype("float32")
model = Probed()
model.compile(optimizer=DistributedOptimizer(keras.optimizers.SGD(0.05)))
try:
    losses = model.fit(x, x.sum(1, keepdims=True), epochs=10, verbose=0).history["probe"]
except Exception as error:
    assert "optimizer" in str(error), error
    print("RESULT refused:", error)
else:
    assert losses[-1] < 0.2 * losses[0], losses
    print("RESULT the probe's loss", losses)
