"""A shard's side of a cut: pushes that do not belong to it wait until the shard has taken its state.

All shards take theirs after the same pushes: the coordinator tells them to hold, learns from each the newest push
of every worker, and names for every worker the newest of any shard. A push up to that one is on its way to all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from downpour.protos import parameter_server_pb2 as pb

Life = tuple[int, int]  # worker, incarnation


class PushHold:
    """From the word to hold until the state is taken, or the cut abandoned.

    Attributes:
        number: Of the cut.
        over: Done when pushes are admitted again.
    """

    def __init__(self, number: int, reached: Mapping[Life, int]) -> None:
        """Holds back everything beyond `reached`, the newest pushes that were admitted."""
        self.number = number
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._limits = dict(reached)
        self._aimed = False

    def aim(self, targets: Iterable[pb.PushPosition]) -> None:
        """Takes the newest push of every worker that belongs to the cut; those that wait look again."""
        self._aimed = True
        self.end()
        self.over = asyncio.get_running_loop().create_future()
        for target in targets:
            life = (target.worker, target.incarnation)
            self._limits[life] = max(self._limits.get(life, 0), target.seq)

    def admits(self, life: Life, seq: int) -> bool:
        """Whether a push belongs to the cut."""
        return seq <= self._limits.get(life, 0)

    def complete(self, reached: Mapping[Life, int], living: Iterable[Life]) -> bool:
        """Whether every push of a living worker that belongs to the cut has been admitted."""
        return self._aimed and all(reached.get(life, 0) >= self._limits.get(life, 0) for life in living)

    def end(self) -> None:
        """Admits pushes again."""
        if not self.over.done():
            self.over.set_result(None)


class CutRound:
    """The coordinator's side: from every shard's newest pushes to those that belong to the cut. Pure."""

    def __init__(self, number: int, shards: Iterable[int]) -> None:
        """Waits for the word of each of the shards."""
        self.number = number
        self._waiting = set(shards)
        self._newest: dict[Life, int] = {}

    def held(self, shard: int, held: pb.HeldPushes) -> pb.Cut | None:
        """Takes what a shard has; the last one's word gives the cut."""
        if held.cut != self.number or shard not in self._waiting:
            return None
        self._waiting.discard(shard)
        for r in held.reached:
            life = (r.worker, r.incarnation)
            self._newest[life] = max(self._newest.get(life, 0), r.seq)
        if self._waiting:
            return None
        reached = [pb.PushPosition(worker=w, incarnation=i, seq=seq) for (w, i), seq in sorted(self._newest.items())]
        return pb.Cut(number=self.number, reached=reached)
