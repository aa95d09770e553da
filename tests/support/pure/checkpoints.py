"""A small checkpoint with one shard, a state vector and one slot."""

from __future__ import annotations

import numpy as np

from downpour.ps.storage.checkpoint_file import SLOT, STATE, TRAINED, Checkpoint, JobFacts

FACTS = {
    "job": "a job", "generation": 3, "optimizer": "momentum", "seed": 1, "batch_size": 4,
    "layout": [{"name": "w", "shape": [3, 2], "section": 0}, {"name": "mean", "shape": [2], "section": 1}],
    "data": {"name": "d", "checksum": "c", "train_samples": 20, "validation_samples": 0, "test_samples": 0},
    "ledger": {"unused": [[0, 4, 8]], "epoch": 1, "position": 12}, "incarnations": {"0": 2},
    "shards": [{"version": 7, "updates": [7], "time_s": 1.5, "records": 9}], "closed_epochs": 0,
    "evaluations": {"0": {"samples": 4, "loss": float("nan"), "accuracy": 0.5}}, "partial_pushes": 1,
    "elapsed_s": 2.5,
    "metrics": {
        "updates": 7, "samples": 28, "dropped": {"late": 2}, "duplicates": 0,
        "workers": {"0": {"updates": 7, "samples": 28, "dropped": 2, "loss": float("inf"), "staleness": {"0": 7}}},
        "epochs": {"0": {"samples": 16, "loss_sum": 1.0, "correct": 3}},
    },
}  # fmt: skip


def checkpoint(number: int = 1, first: float = 1.0) -> Checkpoint:
    vectors = {
        TRAINED: np.arange(6, dtype=np.float32) + np.float32(first),
        STATE: np.array([np.nan, np.inf], np.float32),
        SLOT + "m": np.linspace(-1, 1, 6, dtype=np.float32),
    }
    return Checkpoint(number, vectors, JobFacts.model_validate(FACTS))
