"""Whether a trace tells a history that the server's rules allow."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Trace = NDArray[np.void]


def faults_of(trace: Trace, slack: int | None = None, overlap: bool = False) -> list[str]:
    """What cannot have happened, one line each; empty if all is well.

    Args:
        trace: Of one shard.
        slack: SSP's bound on the clock gap, where workers came and went at no time; None: not checked.
        overlap: Whether workers computed from weights that were older than their own last push.
    """
    found = [*_names(trace), *_versions(trace), *_staleness(trace)]
    if not overlap:
        found += _own_pushes(trace)
    if slack is not None:
        found += _gaps(trace, slack)
    return found


def _names(trace: Trace) -> Iterable[str]:
    """Each (worker, incarnation, seq) has one outcome."""
    names = trace[["worker", "incarnation", "seq"]]
    _, counts = np.unique(names, return_counts=True)
    if (counts > 1).any():
        yield f"{(counts > 1).sum()} pushes have more than one outcome"


def _versions(trace: Trace) -> Iterable[str]:
    """Versions rise by one, and no update is missing."""
    versions = trace["version"][trace["outcome"] == 0].astype(np.int64)
    if len(versions) and (versions[0] != 1 or not np.isin(np.diff(versions), (0, 1)).all()):
        yield "versions do not rise from 1 in steps of one"


def _staleness(trace: Trace) -> Iterable[str]:
    """τ of an applied push is the number of updates between its base version and its own."""
    applied = trace[trace["outcome"] == 0]
    if not np.array_equal(applied["version"] - 1 - applied["base_version"], applied["staleness"]):
        yield "staleness is not version − base version"


def _own_pushes(trace: Trace) -> Iterable[str]:
    """A worker's applied push is in the weights that its next gradient comes from."""
    applied = trace[trace["outcome"] == 0]
    for life in np.unique(applied[["worker", "incarnation"]]):
        mine = applied[applied[["worker", "incarnation"]] == life]
        mine = mine[np.argsort(mine["seq"])]
        if (mine["base_version"][1:] < mine["version"][:-1]).any():
            yield f"worker {life['worker']} did not see its own push"


def _gaps(trace: Trace, slack: int) -> Iterable[str]:
    """No worker completes a step more than slack + 1 ahead of the slowest that is still at work."""
    last = {worker: np.flatnonzero(trace["worker"] == worker)[-1] for worker in np.unique(trace["worker"])}
    clocks = dict.fromkeys(last, 0)
    for index, record in enumerate(trace):
        clocks[record["worker"]] += 1
        at_work = [clock for worker, clock in clocks.items() if last[worker] >= index]
        if max(at_work, default=0) - min(at_work, default=0) > slack + 1:
            yield f"clocks differ by more than slack {slack} + 1 at record {index}"
            return
