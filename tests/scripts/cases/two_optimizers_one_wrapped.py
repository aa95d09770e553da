"""Two optimizers in one train_step, only one wrapped: both must train, or it must be refused."""

import keras
import numpy as np
import tensorflow as tf

from downpour import DistributedOptimizer


class Two(keras.Model):
    def __init__(self):
        super().__init__()
        self.a, self.b = (keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros") for _ in range(2))
        self.other = keras.optimizers.SGD(0.1)

    def call(self, x):
        return self.a(x) + self.b(x)

    def train_step(self, data):
        with tf.GradientTape(persistent=True) as tape:
            first, second = keras.ops.mean(self.a(data)), keras.ops.mean(self.b(data))
        self.other.apply(tape.gradient(second, self.b.trainable_weights), self.b.trainable_weights)
        self.optimizer.apply(tape.gradient(first, self.a.trainable_weights), self.a.trainable_weights)
        return {"loss": first + second}


x, model = np.ones((64, 3), "float32"), Two()
model(x[:1])
model.other.build(model.b.trainable_weights)
model.compile(optimizer=DistributedOptimizer(keras.optimizers.SGD(0.1)), jit_compile=False)
try:
    model.fit(x, batch_size=8, epochs=2, verbose=0)
    a, b = (float(half.kernel.numpy().mean()) for half in (model.a, model.b))
    assert a < -0.4 and b < -0.4, f"both halves must fall to about -1.6; they are at {a} and {b}"
    print("RESULT a, b", a, b)
except AssertionError:
    raise
except Exception as error:
    assert "optimizer" in str(error), error
    print("RESULT refused:", error)
