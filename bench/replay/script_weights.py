"""Saves the weights at which the replay of a script has stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from downpour.bench.replay.script_run import RecordedScript
from downpour.deploy.scripts.script_launcher import MODEL
from downpour.protos.layout import Layout, Tensor
from downpour.ps.control_plane.replay_recorder import save_initial
from downpour.ps.control_plane.replay_target import weights_file
from downpour.ps.storage.checkpoint_file import STATE, TRAINED


def read_weights(order: Path, shards: int) -> tuple[dict[str, np.ndarray], Layout]:
    """Return `trained`, `float32[n]`, and `state`, `float32[m]` if there is any, and the layout.

    Args:
        order: The folder into which the servers of the replay have written them.
        shards: The number of shards.
    """
    parts: list[dict[str, np.ndarray]] = []
    metadata: dict[str, str] = {}
    for shard in range(shards):
        with safe_open(order / weights_file(shard), framework="numpy") as file:
            parts.append({name: file.get_tensor(name) for name in file.keys()})
            metadata = metadata or file.metadata()
    vectors = {TRAINED: np.concatenate([part[TRAINED] for part in parts])}
    layout = Layout.of((name, tuple(shape), section) for name, shape, section in json.loads(metadata["layout"]))
    return ({**vectors, STATE: parts[0][STATE]} if STATE in parts[0] else vectors), layout


def save_weights(recorded: RecordedScript, order: Path, path: Path) -> str:
    """Write the weights as the model of the run, `PATH.keras`, or else as `PATH.safetensors`; return a report.

    Args:
        recorded: The run.
        order: The folder into which the servers of the replay have written them.
        path: The path of the file, without its ending.
    """
    vectors, layout = read_weights(order, recorded.settings.shards)
    reason = _save_model(recorded.path / MODEL, vectors, layout, path.with_suffix(".keras"))
    if not reason:
        return f"{path.with_suffix('.keras')}"
    file = path.with_suffix(".safetensors")
    save_initial(file, vectors, layout)
    return f"{file} (not a .keras file: {reason})"


def _save_model(model_path: Path, vectors: Mapping[str, np.ndarray], layout: Layout, path: Path) -> str:
    """Save the model of a run with other weights; return why that is not possible, or an empty string."""
    if not model_path.exists():
        return "the run has no model.keras"
    import keras

    # Keras raises exceptions of many types for a model whose classes it does not know.
    try:
        model: Any = keras.models.load_model(model_path, compile=False)
    except Exception as error:
        return f"Keras cannot load the model of the run: {error}"
    # Paths of a loaded model lack the name of the model; the order is that of the layout.
    variables = iter([*model.trainable_variables, *model.non_trainable_variables])
    flat = np.concatenate([vectors.get(name, np.empty(0, np.float32)) for name in (TRAINED, STATE)])
    at = 0
    for tensor in layout.tensors:
        variable = next((each for each in variables if _is_same(each, tensor)), None)
        if variable is None:
            return f"the model of the run's last call of fit has no weights {tensor.name} of shape {tensor.shape}"
        variable.assign(flat[at : at + tensor.size].reshape(tensor.shape))
        at += tensor.size
    model.save(path)
    return ""


def _is_same(variable: Any, tensor: Tensor) -> bool:
    names = variable.path.split("/")[-1], tensor.name.split("/")[-1].partition("#")[0]
    return names[0] == names[1] and tuple(variable.shape) == tuple(tensor.shape)
