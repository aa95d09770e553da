"""Checks of a finished chaos round: the weights and the traces must show every update exactly once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from downpour.bench.chaos.history import faults_of
from downpour.bench.chaos.signed_gradients import applied_counts

Counts = NDArray[np.int64]
SEPARATE = ("async", "ssp", "ringmaster")  # modes in which every push is an update of its own


@dataclass(frozen=True)
class Findings:
    """The result of the checks of one run.

    Attributes:
        faults: The violations, one line each.
        samples: The number of samples × epochs that were checked.
        partial: The number of pushes that some slice did not apply, as the servers count them.
    """

    faults: list[str]
    samples: int = 0
    partial: int = 0


def faults_in_run(run: Path, shards: int, epochs: int, batch: int, mode: str = "async") -> Findings:
    """Check the run directory of a job that has ended.

    Args:
        run: The directory.
        shards: The number of shards.
        epochs: The number of epochs.
        batch: The number of samples of a push.
        mode: The mode of the job. Only where every push is an update of its own can the samples be read from the
            weights; means and replicas are checked by the traces.
    """
    weights = np.fromfile(run / "model.keras", np.float32)
    traces = [np.load(run / ("trace.npy" if shard == 0 else f"trace-shard{shard}.npy")) for shard in range(shards)]
    separate = mode.partition(":")[0] in SEPARATE
    if separate:
        try:
            counts = applied_counts(weights, shards, epochs)
        except ValueError as error:
            return Findings([str(error)])
    else:
        counts = np.stack([_recorded(trace, (epochs, weights.size // shards)) for trace in traces])
    partial = int(json.loads((run / "summary.json").read_text())["partial_pushes"])
    faults = list(update_faults(counts, batch, partial))
    for shard, trace in enumerate(traces):
        found = faults_of(trace, overlap=not separate)  # a worker that does not wait for a mean misses its own push
        faults += [f"shard {shard}: {fault}" for fault in (*found, *_agreement(trace, counts[shard]))]
    return Findings(faults, counts.shape[1] * counts.shape[2], partial)


def update_faults(counts: Counts, batch: int, partial: int, in_order: bool = True) -> Iterator[str]:
    """Yield the violations of: every slice applied every sample of every epoch once, or the servers counted it.

    Args:
        counts: How often each sample was applied, `int64[slices, epochs, samples]`.
        batch: The number of samples of a push.
        partial: The number of pushes that some slice did not apply, as the servers count them.
        in_order: Whether the samples of a push follow each other.
    """
    if counts.max() > 1:
        yield f"{(counts > 1).sum()} samples were applied more than once to some slice"
    nowhere = (counts == 0).all(axis=0)
    if nowhere.any():
        yield f"{nowhere.sum()} samples were applied to no slice"
    lacking = (counts == 0).any(axis=0)
    batches = len({(epoch, position // batch) for epoch, position in np.argwhere(lacking)})
    if not in_order:
        batches = -(-int(lacking.sum()) // batch)
    if batches > partial:
        yield f"{batches} batches are missing in a slice, but the servers counted {partial}"


def _agreement(trace: NDArray[np.void], counts: Counts) -> Iterator[str]:
    """Yield a violation unless the trace contains exactly the updates that the weights contain."""
    if not np.array_equal(_recorded(trace, counts.shape), counts):
        yield "the trace and the weights contain different updates"


def _recorded(trace: NDArray[np.void], shape: tuple[int, ...]) -> Counts:
    """Return how often each sample of each epoch was applied, `int64[epochs, samples]`, as the trace states."""
    recorded = np.zeros(shape, np.int64)
    for record in trace[trace["outcome"] == 0]:
        recorded[record["epoch"], record["start"] : record["stop"]] += 1
    return recorded
