"""The weights and slots with which a call of `fit` has ended, for a worker that runs the script again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open

from downpour.worker.fit.cluster.stage import UpdateCounts


@dataclass(frozen=True)
class CompletedFit:
    """The end of a call of `fit`.

    Attributes:
        flat: The weights and the moving statistics, `float32[n + m]`.
        slots: The slots of the optimizers by name, `float32[n]`.
        counts: The updates of each optimizer.
    """

    flat: np.ndarray
    slots: Mapping[str, np.ndarray]
    counts: UpdateCounts


def read_completed(folder: str, call: int) -> CompletedFit | None:
    """Return the end of a call of `fit`; None if its file does not exist.

    Args:
        folder: The folder of the files, which the coordinator writes; empty if there is none.
        call: The number of the call, from 1.

    Raises:
        OSError: The file cannot be read.
    """
    path = Path(folder) / f"fit-{call:06d}.safetensors"
    if not folder or not path.exists():
        return None
    with safe_open(path, framework="numpy") as file:
        vectors = {name: file.get_tensor(name) for name in file.keys()}
        shard = json.loads(file.metadata()["facts"])["shards"][0]
    flat = np.concatenate([vectors["trained"], *([vectors["state"]] if "state" in vectors else [])])
    slots = {name.removeprefix("slot."): vector for name, vector in vectors.items() if name.startswith("slot.")}
    return CompletedFit(flat, slots, UpdateCounts(shard["updates"], shard["gradients"] or shard["updates"]))
