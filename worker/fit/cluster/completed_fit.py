"""The weights and slots with which a call of `fit` has ended, for a worker that runs the script again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from downpour.protos.errors import Unsupported
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
    """Return the end of a call of `fit`; None if its file does not exist or is damaged.

    Args:
        folder: The folder of the files, which the coordinator writes; empty if there is none.
        call: The number of the call, from 1.
    """
    path = Path(folder) / f"fit-{call:06d}.safetensors"
    if not folder or not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            vectors = {name: file.get_tensor(name) for name in file.keys()}
            shard = json.loads(file.metadata()["facts"])["shards"][0]
    except (OSError, SafetensorError):
        return None
    flat = np.concatenate([vectors["trained"], *([vectors["state"]] if "state" in vectors else [])])
    slots = {name.removeprefix("slot."): vector for name, vector in vectors.items() if name.startswith("slot.")}
    return CompletedFit(flat, slots, UpdateCounts(shard["updates"], shard["gradients"] or shard["updates"]))


def check_can_continue(completed: CompletedFit | None, rank: int, call: int, size: int, own_slots: bool) -> None:
    """Check that a worker that runs the script again can continue with the result of a complete call of `fit`.

    Args:
        completed: The end of the call; None if it is not kept.
        rank: The rank of the worker.
        call: The number of the call, from 1.
        size: The number of values of the model's layout.
        own_slots: Whether every worker has slots of its own, instead of the servers.

    Raises:
        Unsupported: It cannot: its script would continue with an untrained model or optimizer.
    """
    again = f"worker {rank} must not be started again after call {call} of fit, which is complete"
    if own_slots:
        raise Unsupported(
            f"{again}: each worker has optimizer slots of its own in this mode, which ended with its process. Run the "
            "script again, or use a mode whose slots are on the servers."
        )
    if completed is None:
        raise Unsupported(
            f"{again}: its weights are not kept, and the script would continue with untrained ones. They are kept for "
            "the last 64 calls unless --checkpoint-every is off or the run directory cannot be written or read. Run "
            "the script again."
        )
    if len(completed.flat) != size:
        raise Unsupported(
            f"{again}: the model must have the {len(completed.flat):,} values that this call has trained. Received: "
            f"one with {size:,}. Build the same model in every process."
        )
