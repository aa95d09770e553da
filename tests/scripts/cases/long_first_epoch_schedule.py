"""A schedule in a first epoch of 24,000 updates whose length nobody knows: it must hold to the end."""

import keras
import tensorflow as tf

from downpour import DistributedOptimizer


def of_outputs(y, outputs):  # its gradient is the mean input
    return keras.ops.mean(outputs, axis=-1)


STEPS, DROP = 24_000, 20_500
data = tf.data.Dataset.range(STEPS).map(lambda i: (tf.ones(1), tf.zeros(1)))
data = data.filter(lambda x, y: True).batch(1)  # of unknown cardinality
schedule = keras.optimizers.schedules.PiecewiseConstantDecay([DROP], [1e-3, 0.0])
model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
model.compile(
    DistributedOptimizer(keras.optimizers.SGD(schedule)),
    loss=of_outputs,
    jit_compile=False,
    steps_per_execution=100,
)
model.fit(data, epochs=1, verbose=0)
moved = -1000 * float(model.get_weights()[0].mean())
assert abs(moved - DROP) < 300, f"{DROP} updates have the rate 0.001 and the rest 0; {moved:.0f} had it"
print("RESULT updates with a rate", moved)
