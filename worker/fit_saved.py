"""The script of `LocalCluster.fit`: trains a model and arrays that lie in a folder, and leaves the result there."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

SEPARATOR = "/"


def flatten(name: str, value: Any, into: dict[str, np.ndarray]) -> Any:
    """Puts the arrays of a nest of dicts and lists into `into`; returns the nest with their names instead.

    Raises:
        TypeError: There is something else than arrays of numbers.
    """
    if value is None:
        return None
    if isinstance(value, Mapping):
        return {str(key): flatten(f"{name}{SEPARATOR}{key}", each, into) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [flatten(f"{name}{SEPARATOR}{index}", each, into) for index, each in enumerate(value)]
    array = np.asarray(value)
    if array.dtype.kind not in "biufc":
        raise TypeError(f"{name} must be an array of numbers, or a dict or list of some. Received: {array.dtype}.")
    into[name] = array
    return name


def restore(nest: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The nest with its arrays."""
    if isinstance(nest, dict):
        return {key: restore(each, arrays) for key, each in nest.items()}
    if isinstance(nest, list):
        return tuple(restore(each, arrays) for each in nest)
    return None if nest is None else arrays[nest]


def main(folder: Path) -> None:
    """Trains what is in the folder."""
    import keras

    from worker import DistributedOptimizer, script

    task = json.loads((folder / "task.json").read_text())
    with np.load(folder / "arrays.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    data = {name: restore(nest, arrays) for name, nest in task["data"].items()}
    arguments: dict[str, Any] = task["arguments"]
    if arguments.get("class_weight"):
        arguments["class_weight"] = {int(key): value for key, value in arguments["class_weight"].items()}
    model = keras.models.load_model(folder / "model.keras")
    DistributedOptimizer(model.optimizer)
    history = model.fit(**data, **arguments)
    model.save_weights(folder / "trained.weights.h5")
    if script.member is None or script.member.leads:
        result = {"history": history.history, "epoch": history.epoch}
        (folder / "history.json").write_text(json.dumps(result, default=float))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
