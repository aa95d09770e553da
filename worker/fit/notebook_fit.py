"""The script that `LocalCluster.fit` runs: it trains a model on arrays, and saves the result in the same folder."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from downpour.protos.array_tree import restore


def main(folder: Path) -> None:
    """Train the model in a folder on the arrays in it, with the arguments of its `task.json`."""
    import keras

    from downpour.worker import script
    from downpour.worker.fit.optimizer.distributed_optimizer import DistributedOptimizer

    task = json.loads((folder / "task.json").read_text())
    for module in task["modules"]:  # they register the layers and losses of the model
        importlib.import_module(module)
    with np.load(folder / "arrays.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    data = {name: restore(tree, arrays) for name, tree in task["data"].items()}
    arguments: dict[str, Any] = task["arguments"]
    if arguments.get("class_weight"):
        arguments["class_weight"] = {int(key): value for key, value in arguments["class_weight"].items()}
    model = keras.models.load_model(folder / "model.keras")
    DistributedOptimizer(model.optimizer)
    history = model.fit(**data, **arguments)
    model.save_weights(folder / "trained.weights.h5")
    if script.member is None or script.member.is_leader:
        result = {"history": history.history, "epoch": history.epoch}
        (folder / "history.json").write_text(json.dumps(result, default=float))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
