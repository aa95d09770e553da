"""A model and a dataset of one row each; `python -m` with this module is a worker that has both registered."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np

from downpour.worker.__main__ import leave, main
from downpour.worker.catalog.datasets import DATASETS, Dataset, dataset_of
from downpour.worker.catalog.models import MODELS, ModelRow

if TYPE_CHECKING:
    import keras

SAMPLES = 320


def toy_model(input_shape: tuple[int, ...], classes: int) -> keras.Model:
    import keras

    return keras.Sequential([keras.Input(input_shape), keras.layers.Dense(classes, activation="softmax", name="toy")])


def toy_dataset(name: str) -> Dataset:
    x = np.random.default_rng(0).normal(size=(SAMPLES, 4)).astype(np.float32)
    y = (x.sum(axis=1) > 0).astype(np.int64)
    return dataset_of(name, {"x_train": x, "y_train": y, "x_test": x[:10], "y_test": y[:10]})


MODEL = ModelRow(toy_model, "one layer", (4,), 2, {"dataset": "toy", "learning_rate": 0.5, "epochs": 3})
DATASET = toy_dataset

if __name__ == "__main__":
    MODELS["toy"], DATASETS["toy"] = MODEL, DATASET  # type: ignore[index]
    leave(main(sys.argv[1:]))
