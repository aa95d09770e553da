"""A stateful RNN with rows in order: trained as one process does, or refused."""

import keras
import numpy as np

from downpour import DistributedOptimizer

keras.utils.set_random_seed(1)
steps = np.random.RandomState(0).choice([-1.0, 1.0], (8, 160))
x = np.concatenate([steps[:, at : at + 4, None] for at in range(0, 160, 4)])
y = np.concatenate([np.cumsum(steps, 1)[:, at + 3, None] for at in range(0, 160, 4)]) / 5
model = keras.Sequential(
    [keras.Input(batch_shape=(8, 4, 1)), keras.layers.SimpleRNN(8, stateful=True), keras.layers.Dense(1)]
)
model.compile(optimizer=DistributedOptimizer(keras.optimizers.Adam(0.01)), loss="mse")
try:
    loss = model.fit(x, y, epochs=30, batch_size=8, shuffle=False, verbose=0).history["loss"][-1]
except Exception as error:
    assert "stateful" in str(error), error
    print("RESULT refused:", error)
else:
    assert loss < 2.2, loss
    print("RESULT loss", loss)
