"""The callbacks of a program that trains on a `LocalCluster`: they run in the program, at the ends of epochs.

Worker 0 writes what happens into a folder, and waits for the answer: a file `event-NAME.json` with the hook, the epoch
and the logs, at the end of an epoch also the weights. The answer is a file `reply-NAME.json` of what has changed.
The files are JSON and weights as Keras saves them; nothing is pickled. This module does not import TensorFlow.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

PER_BATCH = (
    "on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end", "on_test_batch_begin",
    "on_test_batch_end", "on_test_begin", "on_test_end", "on_predict_begin", "on_predict_end",
)  # fmt: skip
OF_ONE_PROCESS = ("BackupAndRestore", "SwapEMAWeights")


def listed(callbacks: Any) -> list[Any]:
    """Return the argument `callbacks` of `fit` as a list.

    Raises:
        TypeError: One of them needs hooks that are not called in this process, or is no callback.
    """
    found = list(callbacks) if isinstance(callbacks, list | tuple) else [callbacks] if callbacks is not None else []
    for callback in found:
        name = type(callback).__name__
        if not all(hasattr(callback, hook) for hook in ("on_epoch_end", "set_model", "set_params")):
            raise TypeError(f"callbacks must be those of Keras. Received: {name}.")
        hooks = sorted({hook for hook in PER_BATCH if _is_own(callback, hook)})
        if hooks or name in OF_ONE_PROCESS:
            why = f"a {name} with {', '.join(hooks)}" if hooks else f"a {name}"
            raise TypeError(
                "callbacks of a cluster run in this process at the beginning and the end of epochs and of training. "
                f"Received: {why}. Write a script and use `downpour run`, in which all hooks are called."
            )
    return found


def _is_own(callback: Any, hook: str) -> bool:
    """Return whether a hook is one that the user has written, rather than Keras."""
    if hook in vars(callback):  # of a LambdaCallback
        function: Any = vars(callback)[hook]
        return not str(getattr(function, "__module__", "")).startswith("keras")
    owner = next((kind for kind in type(callback).__mro__ if hook in vars(kind)), None)
    return owner is not None and not owner.__module__.startswith("keras")


class SessionCallbacks:
    """The callbacks of one call of `LocalCluster.fit`."""

    def __init__(self, callbacks: Sequence[Any], model: Any, folder: Path, epochs: int) -> None:
        """Connect the callbacks with the model of this process.

        Args:
            callbacks: Callbacks that `listed` has accepted.
            model: The model, which receives the weights at the end of every epoch.
            folder: The folder that worker 0 writes into.
            epochs: The number of the last epoch, plus 1.
        """
        self._callbacks, self._model, self._folder = list(callbacks), model, folder
        self._answered: set[str] = set()
        self._last: tuple[tuple[str, int], dict[str, Any]] | None = None  # a worker 0 that was restarted may repeat it
        self._begun = False
        for callback in self._callbacks:
            callback.set_params({"epochs": epochs, "steps": None, "verbose": 0})
            callback.set_model(model)

    def poll(self) -> None:
        """Call the callbacks for what worker 0 has reported since the last call, and answer."""
        for path in sorted(self._folder.glob("event-*.json")) if self._callbacks else ():
            name = path.stem.removeprefix("event-")
            if name not in self._answered:
                self._answered.add(name)
                reply = self._reply(json.loads(path.read_text()), name)
                write_whole(self._folder / f"reply-{name}.json", json.dumps(reply))

    def end(self) -> None:
        """Call the hooks for the end of training, with the trained weights in the model."""
        for callback in self._callbacks if self._begun else ():
            callback.on_train_end({})

    def _reply(self, event: dict[str, Any], name: str) -> dict[str, Any]:
        place = event["hook"], int(event["epoch"])
        if self._last is not None and self._last[0] == place:
            return self._last[1]
        model, logs = self._model, event["logs"]
        if not self._begun:
            self._begun, model.stop_training = True, False
            for callback in self._callbacks:
                callback.on_train_begin({})
        if (self._folder / f"{name}.weights.h5").exists():
            model.load_weights(self._folder / f"{name}.weights.h5")
        before = model.get_weights()
        if event["learning_rate"] is not None:
            model.optimizer.learning_rate = event["learning_rate"]
        for callback in self._callbacks:
            getattr(callback, event["hook"])(place[1], logs)
        reply: dict[str, Any] = {"stop": bool(model.stop_training), "logs": {k: float(v) for k, v in logs.items()}}
        if event["learning_rate"] is not None:
            reply["learning_rate"] = float(np.asarray(model.optimizer.learning_rate))
        if any(not np.array_equal(one, other) for one, other in zip(before, model.get_weights(), strict=True)):
            reply["weights"] = f"{name}-assigned.weights.h5"
            model.save_weights(self._folder / reply["weights"])
        self._last = place, reply
        return reply


def write_whole(path: Path, text: str) -> None:
    """Write a file that another process sees only when it is complete."""
    part = path.with_suffix(".part")
    part.write_text(text)
    os.replace(part, path)
