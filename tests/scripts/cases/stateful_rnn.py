"""A stateful RNN: row i of a batch continues where row i of the batch before ended. It must learn, or be refused."""

import keras
import numpy as np

from downpour import DistributedOptimizer

STREAMS, TIMES = 8, 400
bits = np.random.default_rng(0).integers(0, 2, (TIMES, STREAMS))
before = np.vstack([np.zeros((1, STREAMS), int), bits[:-1]])  # to be foretold: the stream's bit before this one
x, y = (2.0 * bits - 1).astype("float32").reshape(-1, 1, 1), before.reshape(-1, 1).astype("float32")
model = keras.Sequential(
    [
        keras.Input(batch_shape=(STREAMS, 1, 1)),
        keras.layers.SimpleRNN(16, stateful=True),
        keras.layers.Dense(1, activation="sigmoid"),
    ]
)
model.compile(
    DistributedOptimizer(keras.optimizers.Adam(0.01)), "binary_crossentropy", metrics=["accuracy"], jit_compile=False
)
try:
    model.fit(x, y, batch_size=STREAMS, shuffle=False, epochs=6, verbose=0)
except Exception as error:
    assert "state" in str(error).lower(), error
    print("RESULT refused:", error)
    raise SystemExit(0)
accuracy = model.evaluate(x, y, batch_size=STREAMS, verbose=0, return_dict=True)["accuracy"]
assert accuracy > 0.8, f"the bit before is in the state; accuracy {accuracy} (chance is 0.5)"
print("RESULT accuracy", accuracy)
