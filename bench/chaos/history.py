"""Checks that the history in a trace is one that the server's rules allow."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Trace = NDArray[np.void]


def faults_of(trace: Trace, slack: int | None = None, overlap: bool = False) -> list[str]:
    """Return the violations of the rules, one line each.

    Args:
        trace: The trace of one shard.
        slack: SSP's bound on the difference of clocks, if no worker joined or left (default: not checked).
        overlap: Whether workers computed gradients from weights older than their own latest push.
    """
    found = [*_outcomes(trace), *_versions(trace), *_staleness(trace)]
    if not overlap:
        found += _own_pushes(trace)
    if slack is not None:
        found += _gaps(trace, slack)
    return found


def _outcomes(trace: Trace) -> Iterable[str]:
    """Yield a violation unless each (worker, incarnation, seq) has one outcome."""
    names = trace[["worker", "incarnation", "seq"]]
    _, counts = np.unique(names, return_counts=True)
    if (counts > 1).any():
        yield f"{(counts > 1).sum()} pushes have more than one outcome"


def _versions(trace: Trace) -> Iterable[str]:
    """Yield a violation unless versions increase by one from 1."""
    versions = trace["version"][trace["outcome"] == 0].astype(np.int64)
    if len(versions) and (versions[0] != 1 or not np.isin(np.diff(versions), (0, 1)).all()):
        yield "versions must increase from 1 in steps of one, and do not"


def _staleness(trace: Trace) -> Iterable[str]:
    """Yield a violation unless τ of an applied push is the number of updates since its base version."""
    applied = trace[trace["outcome"] == 0]
    if not np.array_equal(applied["version"] - 1 - applied["base_version"], applied["staleness"]):
        yield "staleness must be version − 1 − base version, and is not"


def _own_pushes(trace: Trace) -> Iterable[str]:
    """Yield a violation unless a worker's next gradient comes from weights that contain its applied push."""
    applied = trace[trace["outcome"] == 0]
    for life in np.unique(applied[["worker", "incarnation"]]):
        mine = applied[applied[["worker", "incarnation"]] == life]
        mine = mine[np.argsort(mine["seq"])]
        if (mine["base_version"][1:] < mine["version"][:-1]).any():
            yield f"worker {life['worker']} computed a gradient from weights that did not contain its own push"


def _gaps(trace: Trace, slack: int) -> Iterable[str]:
    """Yield a violation if a worker is more than slack + 1 steps ahead of the slowest active worker."""
    last = {worker: np.flatnonzero(trace["worker"] == worker)[-1] for worker in np.unique(trace["worker"])}
    clocks = dict.fromkeys(last, 0)
    for index, record in enumerate(trace):
        clocks[record["worker"]] += 1
        at_work = [clock for worker, clock in clocks.items() if last[worker] >= index]
        if max(at_work, default=0) - min(at_work, default=0) > slack + 1:
            yield f"clocks differ by more than slack {slack} + 1 at record {index}"
            return
