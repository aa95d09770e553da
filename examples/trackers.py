"""Logs to TensorBoard, Weights & Biases and MLflow, as installed: `downpour run --workers 2 examples/trackers.py`.

Each tracker has one run, with the number of workers and the staleness of every epoch. Nothing needs the network.
"""

import importlib.util
from pathlib import Path

import keras
import numpy as np

from downpour import DistributedOptimizer, JobMetrics

keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(2048, 8)).astype("float32")
y = np.square(x).mean(1, keepdims=True)
model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(1)])
model.compile(optimizer=DistributedOptimizer(keras.optimizers.Adam(0.003)), loss="mse")

Path("tracked").mkdir(exist_ok=True)
callbacks = [JobMetrics()]
if importlib.util.find_spec("tensorboard"):
    callbacks.append(keras.callbacks.TensorBoard("tracked/tensorboard"))
if importlib.util.find_spec("wandb"):
    import wandb
    from wandb.integration.keras import WandbMetricsLogger

    wandb.init(project="downpour", mode="offline", dir="tracked")
    callbacks.append(WandbMetricsLogger())
if importlib.util.find_spec("mlflow"):
    import mlflow

    mlflow.set_tracking_uri("sqlite:///tracked/mlflow.db")
    mlflow.keras.autolog(log_models=False)

history = model.fit(x, y, batch_size=32, epochs=5, verbose=2, callbacks=callbacks)
if importlib.util.find_spec("wandb"):
    wandb.finish()
print(f"workers {history.history['workers'][-1]:.0f}, staleness {history.history['staleness'][-1]:.2f}")
