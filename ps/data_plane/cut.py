"""Consistent cuts: all shards take their state after the same pushes.

The coordinator tells every shard to hold new pushes, learns from each the newest push of every worker, and names for
every worker the newest push that any shard has. A push up to that one is on its way to all shards. Each shard admits
these pushes, takes its state, and then admits all pushes again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from downpour.protos import parameter_server_pb2 as pb
from downpour.ps.core.push import Push

Incarnation = tuple[int, int]  # worker, incarnation


class PushHold:
    """Holds back pushes from the command to hold until the state is taken, or the cut abandoned.

    Attributes:
        number: The number of the cut.
        released: A future that is done when the held pushes must be checked again.
        change: The change of settings that takes effect at the cut; None if there is none.
    """

    def __init__(self, number: int, admitted: Mapping[Incarnation, int]) -> None:
        """Hold back every push after `admitted`, the number of each worker's newest admitted push."""
        self.number = number
        self.change: pb.SettingsChange | None = None
        self.released: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._limits = dict(admitted)
        self._has_targets = False

    def set_targets(self, targets: Iterable[pb.PushPosition], change: pb.SettingsChange | None = None) -> None:
        """Set the newest push of every worker that belongs to the cut; held pushes are checked again."""
        self._has_targets, self.change = True, change
        self.release()
        self.released = asyncio.get_running_loop().create_future()
        for target in targets:
            incarnation = (target.worker, target.incarnation)
            self._limits[incarnation] = max(self._limits.get(incarnation, 0), target.seq)

    def admits(self, incarnation: Incarnation, seq: int) -> bool:
        """Return whether a push belongs to the cut."""
        return seq <= self._limits.get(incarnation, 0)

    def complete(self, admitted: Mapping[Incarnation, int], live: Iterable[Incarnation]) -> bool:
        """Return whether every push of a live worker that belongs to the cut has been admitted."""
        return self._has_targets and all(admitted.get(each, 0) >= self._limits.get(each, 0) for each in live)

    def release(self) -> None:
        """Let the held pushes be checked again."""
        if not self.released.done():
            self.released.set_result(None)


class ShardCut:
    """A shard's side of cuts: the newest push of every worker, and the pushes that are held back while a cut is taken.

    Attributes:
        newest: The newest push that has been admitted of every incarnation of a worker.
    """

    def __init__(self) -> None:
        """Create a state in which no push has been admitted and none is held."""
        self.newest: dict[Incarnation, Push] = {}
        self._hold: PushHold | None = None

    @property
    def under_way(self) -> bool:
        """Return whether a cut is about to be taken."""
        return self._hold is not None

    @property
    def change(self) -> pb.SettingsChange | None:
        """Return the change of settings that takes effect at the cut; None if there is none."""
        return self._hold.change if self._hold is not None else None

    def departed(self, member: pb.Member) -> pb.DepartedWorker:
        """Return the newest push of a worker that has left, and forget it."""
        push = self.newest.pop((member.worker, member.incarnation), None)
        departed = pb.DepartedWorker(worker=member.worker, incarnation=member.incarnation)
        if push is not None:
            departed.seq, departed.lease, departed.stop = push.seq, push.lease, push.stop
        return departed

    def held(self, header: pb.Request) -> asyncio.Future[None] | None:
        """Return a future that a push must wait for, unread, before it is checked again; None if it may be taken."""
        if self._hold is None or header.kind != pb.PUSH_PULL:
            return None
        return None if self._hold.admits((header.worker, header.incarnation), header.seq) else self._hold.released

    def hold(self, number: int) -> pb.HeldPushes:
        """Hold new pushes for a cut; return the newest pushes that have been admitted."""
        self.end()
        self._hold = PushHold(number, self._admitted())
        reached = [pb.PushPosition(worker=w, incarnation=i, seq=seq) for (w, i), seq in self._admitted().items()]
        return pb.HeldPushes(cut=number, reached=reached)

    def set_targets(self, cut: pb.Cut) -> None:
        """Set the pushes that belong to the cut, or abandon it; ignore a message about another cut."""
        if self._hold is None or self._hold.number != cut.number:
            return
        if cut.abandon:
            self.end()
        else:
            self._hold.set_targets(cut.reached, cut.change if cut.HasField("change") else None)

    def due(self, members: Iterable[pb.Member]) -> int | None:
        """Return the number of the cut if all pushes that belong to it have been admitted, else None."""
        live = [(member.worker, member.incarnation) for member in members]
        if self._hold is None or not self._hold.complete(self._admitted(), live):
            return None
        return self._hold.number

    def end(self) -> None:
        """End the cut: pushes of every worker are admitted again."""
        hold, self._hold = self._hold, None
        if hold is not None:
            hold.release()

    def clear(self) -> None:
        """End a cut that is under way and forget all pushes."""
        self.end()
        self.newest.clear()

    def _admitted(self) -> dict[Incarnation, int]:
        return {incarnation: push.seq for incarnation, push in self.newest.items()}


class CutRound:
    """The coordinator's side of one cut: computes from every shard's newest pushes which ones belong to the cut."""

    def __init__(self, number: int, shards: Iterable[int]) -> None:
        """Create a round that waits for the newest pushes of each of the shards."""
        self.number = number
        self._waiting = set(shards)
        self._newest: dict[Incarnation, int] = {}

    def held(self, shard: int, held: pb.HeldPushes) -> pb.Cut | None:
        """Record the newest pushes of a shard; return the cut once all shards have reported."""
        if held.cut != self.number or shard not in self._waiting:
            return None
        self._waiting.discard(shard)
        for r in held.reached:
            incarnation = (r.worker, r.incarnation)
            self._newest[incarnation] = max(self._newest.get(incarnation, 0), r.seq)
        if self._waiting:
            return None
        reached = [pb.PushPosition(worker=w, incarnation=i, seq=seq) for (w, i), seq in sorted(self._newest.items())]
        return pb.Cut(number=self.number, reached=reached)
