"""A callback anneals a weight of the loss that lies in a variable: it must hold on all workers (KL annealing)."""

import keras
import numpy as np

from downpour import DistributedOptimizer

beta = keras.Variable(0.0, trainable=False, name="beta")


def weighed(y, outputs):
    return beta * keras.ops.mean(outputs, axis=-1)


class Anneal(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        beta.assign(float(epoch >= 1))


model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
model.compile(
    DistributedOptimizer(keras.optimizers.SGD(0.1)),
    loss=weighed,
    jit_compile=False,
)
x = np.ones((64, 3), "float32")
model.fit(x, x[:, :1], batch_size=8, epochs=2, verbose=0, callbacks=[Anneal()])
kernel = float(model.get_weights()[0].mean())
# Epoch 0 has the weight 0, epoch 1 eight updates of 0.1.
assert abs(kernel + 0.8) < 0.05, f"the kernel must be at -0.8; it is at {kernel}"
print("RESULT kernel", kernel)
