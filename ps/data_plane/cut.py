"""A shard's part in cuts: the newest push of every life of a worker, and what is held back while a cut is taken."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from downpour.protos import parameter_server_pb2 as pb
from downpour.ps.core.push import Push
from downpour.ps.data_plane.hold import Life, PushHold


class ShardCut:
    """Knows what has been admitted and, between the coordinator's word and the cut, what must wait.

    Attributes:
        newest: The newest push of every worker's life that has been admitted.
    """

    def __init__(self) -> None:
        """Nothing has been admitted, nothing is held."""
        self.newest: dict[Life, Push] = {}
        self._hold: PushHold | None = None

    @property
    def under_way(self) -> bool:
        """Whether a cut is about to be taken."""
        return self._hold is not None

    def departed(self, member: pb.Member) -> pb.DepartedWorker:
        """How far a worker that has left came here; it is forgotten."""
        push = self.newest.pop((member.worker, member.incarnation), None)
        departed = pb.DepartedWorker(worker=member.worker, incarnation=member.incarnation)
        if push is not None:
            departed.seq, departed.lease, departed.stop = push.seq, push.lease, push.stop
        return departed

    def held(self, header: pb.Request) -> asyncio.Future[None] | None:
        """What a push must wait for, unread, before it is taken; None: it may be taken now."""
        if self._hold is None or header.kind != pb.PUSH_PULL:
            return None
        return None if self._hold.admits((header.worker, header.incarnation), header.seq) else self._hold.over

    def hold(self, number: int) -> pb.HeldPushes:
        """Holds pushes for a cut; returns what has been admitted."""
        self.end()
        self._hold = PushHold(number, self._reached())
        reached = [pb.PushPosition(worker=w, incarnation=i, seq=seq) for (w, i), seq in self._reached().items()]
        return pb.HeldPushes(cut=number, reached=reached)

    def aim(self, cut: pb.Cut) -> None:
        """Takes what belongs to the cut, or that it is abandoned; another cut's word means nothing."""
        if self._hold is None or self._hold.number != cut.number:
            return
        if cut.abandon:
            self.end()
        else:
            self._hold.aim(cut.reached)

    def due(self, members: Iterable[pb.Member]) -> int | None:
        """The number of the cut, once all that belongs to it is there."""
        living = [(member.worker, member.incarnation) for member in members]
        if self._hold is None or not self._hold.complete(self._reached(), living):
            return None
        return self._hold.number

    def end(self) -> None:
        """Admits pushes again."""
        hold, self._hold = self._hold, None
        if hold is not None:
            hold.end()

    def clear(self) -> None:
        """Ends a cut that is under way and forgets all pushes."""
        self.end()
        self.newest.clear()

    def _reached(self) -> dict[Life, int]:
        return {life: push.seq for life, push in self.newest.items()}
