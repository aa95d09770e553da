"""A PyDataset with use_multiprocessing=True: its processes are forked while gRPC is at work."""

import signal

import keras
import numpy as np

from downpour import DistributedOptimizer


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 12

    def __getitem__(self, index):
        x = np.random.default_rng(index).normal(size=(8, 3)).astype("float32")
        return x, x[:, :1]


signal.alarm(60)  # a hang is the failure that is looked for
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
model.compile(DistributedOptimizer(keras.optimizers.SGD(0.05)), "mse", jit_compile=False)
data = Batches(workers=2, use_multiprocessing=True, max_queue_size=4)
losses = model.fit(data, epochs=3, verbose=0).history["loss"]
signal.alarm(0)
assert len(losses) == 3 and losses[-1] < losses[0], losses
assert int(model.optimizer.iterations) == 36, int(model.optimizer.iterations)
print("RESULT losses", losses)
