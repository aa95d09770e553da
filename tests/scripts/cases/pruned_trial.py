"""A callback that raises to end a trial: the script catches it on every worker, and the next trial trains."""

import keras
import numpy as np

from downpour import DistributedOptimizer


class Pruned(Exception):
    pass


class Prune(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1 and logs["loss"] > 0:
            raise Pruned(f"pruned at epoch {epoch}")


x = np.random.default_rng(0).normal(size=(128, 4)).astype("float32")
ended = []
for trial in range(3):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(DistributedOptimizer(keras.optimizers.SGD(0.01 * (trial + 1))), "mse")
    try:
        model.fit(x, x[:, :1], batch_size=16, epochs=4, verbose=0, callbacks=[Prune()] if trial != 1 else [])
        ended.append("trained")
    except Pruned as error:
        ended.append(str(error))
assert ended == ["pruned at epoch 1", "trained", "pruned at epoch 1"], ended
print("RESULT", ended)
