"""What a worker leaves behind on several shards: no slice may have a batch twice, and what some lack is counted.

A worker that dies between two shards' pushes has given its last batch to some of them only. Its samples are lent
again only if no shard has them, so its leases are settled when every shard has said what it has.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from downpour.protos import parameter_server_pb2 as pb
from downpour.ps.coordinator.ledger import Ledger

Life = tuple[int, int]  # worker, incarnation


@dataclass
class _Departure:
    leases: list[int]
    view: int
    waiting: set[int]
    last: dict[int, pb.DepartedWorker] = field(default_factory=dict)


class OrphanedLeases:
    """Workers that have left and whose leases are not settled yet. Pure.

    Attributes:
        partial: Pushes so far that some shards have and others lack.
    """

    def __init__(self) -> None:
        """Nobody has left."""
        self.partial = 0
        self._open: dict[Life, _Departure] = {}

    def __len__(self) -> int:
        """Workers whose leases are not settled yet."""
        return len(self._open)

    def begin(self, worker: int, incarnation: int, view: int, ledger: Ledger, shards: int) -> None:
        """A worker has left with `view`; every one of `shards` will say what it has of it."""
        self._open[worker, incarnation] = _Departure(ledger.suspend(worker), view, set(range(shards)))

    def told(self, shard: int, departed: pb.DepartedWorker) -> None:
        """Takes what a shard has of a worker that has left."""
        departure = self._open.get((departed.worker, departed.incarnation))
        if departure is not None:
            departure.last[shard] = departed

    def seen(self, shard: int, view: int, ledger: Ledger) -> None:
        """A shard has said all there is of those who left up to `view`; what is settled with that is free again."""
        for life, departure in list(self._open.items()):
            if departure.view <= view:
                departure.waiting.discard(shard)
            if not departure.waiting:
                del self._open[life]
                self._settle(departure, ledger)

    def _settle(self, departure: _Departure, ledger: Ledger) -> None:
        newest = [last.seq for last in departure.last.values()] or [0]
        self.partial += max(newest) - min(newest)
        for lease in departure.leases:
            reached = max((last.stop for last in departure.last.values() if last.lease == lease), default=0)
            ledger.settle(lease, reached)

    def clear(self) -> None:
        """Forgets those who left: their leases do not exist any more."""
        self._open.clear()
