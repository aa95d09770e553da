"""Linear regression with NumPy alone: run it with `downpour run --workers 2 examples/numpy_worker.py`."""

import sys

import numpy as np

import downpour

rng = np.random.default_rng(0)
x = rng.normal(size=(2048, 3)).astype("float32")
y = x @ np.float32([2.0, -1.0, 0.5]) + 3.0

address = sys.argv[1] if len(sys.argv) > 1 else None  # without `downpour run`: that of `downpour ps --script`
with downpour.connect(address, {"w": np.zeros(3), "b": np.zeros(())}, optimizer="sgd", learning_rate=0.05) as client:
    weights, own = client.pull(), slice(client.rank, None, client.size)  # every worker has its part of the rows
    for batch_x, batch_y in zip(np.split(x[own], 64), np.split(y[own], 64), strict=True):
        error = batch_x @ weights["w"] + weights["b"] - batch_y
        gradients = {"w": 2 * batch_x.T @ error / len(error), "b": 2 * error.mean()}
        weights, reply = client.push_pull(gradients, samples=len(error), loss=np.square(error).mean())
    print(f"worker {client.rank}: w = {weights['w'].round(2)}, b = {weights['b']:.2f}, staleness {reply.staleness}")
