"""mixed_float16: a scale of the loss, a batch that overflows and changes nothing, and a saved model that continues."""

import keras
import numpy as np

from downpour import DistributedOptimizer

keras.mixed_precision.set_global_policy("mixed_float16")
x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1, dtype="float32")])
model.compile(DistributedOptimizer(keras.optimizers.Adam(0.02)), "mse")
history = model.fit(x, x[:, :1], batch_size=8, epochs=12, verbose=0).history["loss"]
assert type(model.optimizer).__name__ == "LossScaleOptimizer"
assert history[-1] < 0.5 * history[0], history
assert 60 < int(model.optimizer.iterations) <= 96, int(model.optimizer.iterations)

before, scale = [np.copy(weight) for weight in model.get_weights()], float(model.optimizer.dynamic_scale)
model.fit(x[:16], np.full((16, 1), np.inf), batch_size=8, epochs=1, verbose=0)
assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
assert float(model.optimizer.dynamic_scale) < scale

model.save("model.keras")
other = keras.models.load_model("model.keras")
kept = [np.copy(variable) for variable in model.optimizer.variables]
assert all(np.array_equal(a, b) for a, b in zip(kept, other.optimizer.variables, strict=True))
count = int(other.optimizer.iterations)
other.fit(x, x[:, :1], batch_size=8, epochs=1, verbose=0)
assert count + 8 - 2 <= int(other.optimizer.iterations) <= count + 8
print("RESULT", history[-1], scale)
