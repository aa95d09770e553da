"""The clocks of the workers of a shard, counted apart from the shard's own, for the bound of SSP."""

from __future__ import annotations

from downpour.bench.world.system.scheduler import World
from downpour.ps.core.shard import Shard


class SspClocks:
    """Counts the pushes of every live worker of one shard.

    The clocks of SSP (Ho et al. 2013) differ by at most slack + 1: a step begins if a worker is at most `slack` ahead.
    """

    def __init__(self, world: World, shard: int, slack: int) -> None:
        """Create the clocks of a shard without workers."""
        self._world, self._shard, self._slack = world, shard, slack
        self._pushes: dict[int, tuple[int, int]] = {}  # incarnation, number of its newest push
        self._clocks: dict[int, int] = {}
        self._generation = 0

    def check(self, shard: Shard) -> None:
        """Read the newest pushes of the shard's workers, and check the bound."""
        if shard.generation != self._generation:
            self._generation = shard.generation
            self._clocks.clear()
            self._pushes.clear()
        history = shard._outcomes._members
        live = shard.consistency.clocks.keys()
        for worker in [worker for worker in self._clocks if worker not in live]:
            del self._clocks[worker]
        lowest = min(self._clocks.values(), default=0)
        for worker in live:
            self._clocks.setdefault(worker, lowest)
        for worker, member in history.items():
            incarnation, before = self._pushes.get(worker, (0, 0))
            if incarnation != member.incarnation:
                before = 0
            self._pushes[worker] = member.incarnation, member.last_seq
            if worker in self._clocks:
                self._clocks[worker] += member.last_seq - before
        found = sorted(self._clocks.values())
        if found and found[-1] - found[0] > self._slack + 1:
            self._world.problem(f"shard {self._shard}: workers are {found[-1] - found[0]} pushes apart")
            self._clocks.clear()
