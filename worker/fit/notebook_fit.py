"""The script that `LocalCluster.fit` runs: it trains a model on arrays, and saves the result in the same folder."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from downpour.protos.array_tree import restore

POLL_S = 0.02


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
    callbacks = [_session_callback(folder)] if task["callbacks"] else []
    history = model.fit(**data, **arguments, callbacks=callbacks)
    model.save_weights(folder / "trained.weights.h5")
    if script.member is None or script.member.is_leader:
        result = {"history": history.history, "epoch": history.epoch}
        (folder / "history.json").write_text(json.dumps(result, default=float))


def _session_callback(folder: Path) -> Any:
    """Return the callback by which worker 0 lets the program that has called `LocalCluster.fit` run its callbacks.

    See `downpour.deploy.scripts.session_callbacks` for the files.
    """
    import keras

    class SessionCallback(keras.callbacks.Callback):
        only_on_leader = True
        events = 0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self._ask("on_epoch_begin", epoch, logs)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self._ask("on_epoch_end", epoch, logs)

        def _ask(self, hook: str, epoch: int, logs: Any) -> None:
            self.events += 1
            name, model = f"{os.getpid()}-{self.events:06d}", self.model
            if hook == "on_epoch_end":
                model.save_weights(folder / f"{name}.weights.h5")
            rate = model.optimizer._learning_rate
            fixed = float(rate) if isinstance(rate, keras.Variable) else None
            numbers = {key: float(value) for key, value in (logs or {}).items()}
            part = folder / f"event-{name}.part"
            part.write_text(json.dumps({"hook": hook, "epoch": epoch, "logs": numbers, "learning_rate": fixed}))
            os.replace(part, folder / f"event-{name}.json")
            reply_file = folder / f"reply-{name}.json"
            while not reply_file.exists():  # if the program ends, this process is ended as well
                time.sleep(POLL_S)
            reply = json.loads(reply_file.read_text())
            if logs is not None:
                logs.update(reply["logs"])
            if reply.get("learning_rate") is not None and reply["learning_rate"] != fixed:
                model.optimizer.learning_rate = reply["learning_rate"]
            if "weights" in reply:
                model.load_weights(folder / reply["weights"])
            model.stop_training = model.stop_training or reply["stop"]

    return SessionCallback()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
