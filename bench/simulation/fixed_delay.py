"""Updates with a constant delay: every gradient is computed from a version that is older by a fixed number."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

from downpour.bench.simulation.problems import Problem
from downpour.bench.simulation.run_statistics import OutcomeStatistics
from downpour.bench.simulation.virtual_time import NONFINITE_PUSHES
from downpour.ps.core.buffers import Buffer
from downpour.ps.core.push import Push
from downpour.ps.core.shard import Shard


def run_delayed(
    shard: Shard, problem: Problem, updates: int, delay: int, workers: int,
    observe: Callable[[int, np.ndarray], None] | None = None,
) -> OutcomeStatistics:  # fmt: skip
    """Make `updates` updates, each with a gradient of the version `delay` before it, or of version 0.

    Raises:
        ValueError: The mode applies no push with this delay.
    """
    statistics, history = OutcomeStatistics(workers), deque[tuple[Buffer, int]]()
    shard.observe(statistics.outcome)
    for worker in range(workers):
        shard.join(worker, 1)
    history.append(shard.pull(worker=0))
    idle = pushes = 0
    while (version := shard.version) < updates and statistics.dropped["nonfinite"] < NONFINITE_PUSHES:
        while history[0][1] < version - delay:
            shard.release(history.popleft()[0])
        worker, (buffer, base) = pushes % workers, history[0]
        push = Push(worker, 1, pushes // workers + 1, base, problem.batch)
        shard.push(push, problem.gradient(worker, buffer.array))
        pushes += 1
        idle = 0 if shard.version > version else idle + 1
        if idle > 100_000:
            raise ValueError(f"the mode must apply pushes with a delay of {delay} versions; it applied none of 100,000")
        if shard.version > version:
            # The workers take turns, so that compensations keep the old versions of every worker in any mode.
            history.append(shard.pull(worker=shard.version % workers))
            if observe is not None:
                observe(shard.version, history[-1][0].array)
    return statistics
