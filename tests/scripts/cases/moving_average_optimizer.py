"""An optimizer with `use_ema`: the weights at the end are the averages; a second `fit` and a saved model go on with them."""

import keras
import numpy as np

from downpour import DistributedOptimizer

x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="zeros")])
model.compile(DistributedOptimizer(keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.9)), "mse")
before_end = []
last = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: before_end.append(model.get_weights()[0][0, 0]))
model.fit(x, x[:, :1], batch_size=16, epochs=2, verbose=0, callbacks=[last])
first = float(model.get_weights()[0][0, 0])
assert 0.2 < first < float(before_end[-1]) - 0.01, (first, before_end)
average = [v for v in model.optimizer.variables if "average" in v.path and v.shape == (4, 1)]
assert len(average) == 1 and abs(float(average[0][0, 0]) - first) < 1e-6, average
model.fit(x, x[:, :1], batch_size=16, epochs=1, verbose=0)
second = float(model.get_weights()[0][0, 0])
assert first < second < 1.0, (first, second)
model.save("averaged.keras")
loaded = keras.models.load_model("averaged.keras")
assert [v.shape for v in loaded.optimizer.variables] == [v.shape for v in model.optimizer.variables]
print("RESULT weight", second)
