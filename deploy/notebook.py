"""A cluster from Python, without a command line: `LocalCluster(workers=4).fit(model, x, y, epochs=5)`.

TensorFlow is the caller's: this module only asks the model that it is given to save itself and to load weights.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import worker
from deploy.run import RunSettings, launch
from worker.fit_saved import flatten

DATA = ("x", "y", "sample_weight", "validation_data")
NOT_CARRIED = ("callbacks",)
NAME = "notebook"


class FitFailed(RuntimeError):
    """The cluster did not train the model; what its processes said is above, and in the run directory."""


@dataclass(frozen=True)
class FitHistory:
    """What `fit` of Keras gives back, as far as it travels.

    Attributes:
        history: The value of every metric by epoch.
        epoch: The epochs.
    """

    history: dict[str, list[float]]
    epoch: list[int]


class LocalCluster:
    """Servers and workers on this machine, for each call of `fit`."""

    def __init__(self, workers: int = 2, shards: int = 1, **settings: Any) -> None:
        """Starts nothing yet.

        Args:
            workers: Processes that compute gradients.
            shards: Processes that hold the weights.
            settings: Others of `downpour run`, such as `mode="ssp:2"` or `runs_dir="runs"`.

        Raises:
            ValueError: There is no such setting, or it does not hold.
        """
        if unknown := [name for name in settings if name not in RunSettings.model_fields]:
            raise ValueError(f"a cluster has {', '.join(RunSettings.model_fields)}. Received: {', '.join(unknown)}.")
        self._settings = RunSettings(workers=workers, shards=shards, **settings)

    def fit(self, model: Any, x: Any, y: Any = None, **arguments: Any) -> FitHistory:
        """Trains a compiled model, whose weights are the trained ones afterwards; call it from the main thread.

        The model travels as a `.keras` file and the data as arrays: nothing is pickled.

        Args:
            model: Compiled; layers, losses and metrics of your own must be registered with Keras, and importable.
            x: An array, or a dict or list of arrays.
            y: Targets alike.
            arguments: Of `model.fit`, without callbacks.

        Raises:
            TypeError: Something does not travel.
            FitFailed: The cluster did not end well.
        """
        for name in NOT_CARRIED:
            if arguments.get(name):
                raise TypeError(f"{name} do not travel to other processes: write a script for `downpour run`.")
        if getattr(model, "optimizer", None) is None:
            raise TypeError("a model must be compiled with an optimizer before it is trained. Call model.compile(...).")
        arrays: dict[str, np.ndarray] = {}
        data = {"x": x, "y": y, **{name: arguments.pop(name) for name in DATA if name in arguments}}
        nests = {name: flatten(name, value, arrays) for name, value in data.items() if value is not None}
        with tempfile.TemporaryDirectory(prefix="downpour-") as name:
            folder = Path(name)
            model.save(folder / "model.keras")
            np.savez(folder / "arrays.npz", **arrays)  # type: ignore[arg-type]
            (folder / "task.json").write_text(json.dumps({"data": nests, "arguments": arguments}))
            script = str(Path(worker.__file__).with_name("fit_saved.py"))
            code = launch(self._settings, [script, str(folder)], NAME)
            if code != 0:
                raise FitFailed(f"the cluster must end with status 0; it ended with {code}.")
            model.load_weights(folder / "trained.weights.h5")
            return FitHistory(**json.loads((folder / "history.json").read_text()))
