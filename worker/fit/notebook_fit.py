"""The script of `LocalCluster.fit`: trains a model and arrays that lie in a folder, and leaves the result there."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from downpour.protos.array_tree import restore


def main(folder: Path) -> None:
    """Trains what is in the folder."""
    import keras

    from downpour.worker import script
    from downpour.worker.fit.distributed_optimizer import DistributedOptimizer

    task = json.loads((folder / "task.json").read_text())
    for module in task["modules"]:  # they register what the model is made of
        importlib.import_module(module)
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
