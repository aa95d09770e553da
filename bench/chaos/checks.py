"""What the weights and the traces of a job of marks.py must tell when it has ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from downpour.bench.chaos.history import faults_of
from downpour.bench.chaos.marks import applied_counts

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Findings:
    """What one run came to.

    Attributes:
        faults: What must not be, one line each.
        samples: Samples × epochs that were looked at.
        partial: Pushes that the servers say some slice lacks.
    """

    faults: list[str]
    samples: int = 0
    partial: int = 0


def faults_in_run(run: Path, shards: int, epochs: int, batch: int) -> Findings:
    """Looks at a run directory whose job has ended."""
    weights = np.fromfile(run / "model.keras", np.float32)
    try:
        counts = applied_counts(weights, shards, epochs)
    except ValueError as error:
        return Findings([str(error)])
    partial = int(json.loads((run / "summary.json").read_text())["partial_pushes"])
    faults = list(_weights(counts, batch, partial))
    for shard in range(shards):
        trace = np.load(run / ("trace.npy" if shard == 0 else f"trace-shard{shard}.npy"))
        faults += [f"shard {shard}: {fault}" for fault in (*faults_of(trace), *_agreement(trace, counts[shard]))]
    return Findings(faults, counts.shape[1] * counts.shape[2], partial)


def _weights(counts: Counts, batch: int, partial: int) -> Iterator[str]:
    """Every sample of every epoch is in every slice once; what a slice lacks was counted."""
    if counts.max() > 1:
        yield f"{(counts > 1).sum()} samples were applied more than once to some slice"
    nowhere = (counts == 0).all(axis=0)
    if nowhere.any():
        yield f"{nowhere.sum()} samples were applied to no slice"
    lacking = (counts == 0).any(axis=0)
    batches = len({(epoch, position // batch) for epoch, position in np.argwhere(lacking)})
    if batches > partial:
        yield f"{batches} batches lack in a slice, but {partial} were counted"


def _agreement(trace: NDArray[np.void], counts: Counts) -> Iterator[str]:
    """The trace tells of exactly the updates that are in the weights."""
    told = np.zeros_like(counts)
    for record in trace[trace["outcome"] == 0]:
        told[record["epoch"], record["start"] : record["stop"]] += 1
    if not np.array_equal(told, counts):
        yield "the trace and the weights tell of different updates"
