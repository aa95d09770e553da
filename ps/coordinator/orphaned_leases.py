"""The leases of workers that left a job of several shards, until every shard has reported their last push.

A worker that dies between its pushes to two shards has given its last batch to some shards only. To lease the batch
again would give it twice to these. So its samples are leased again only if no shard has them: its leases are settled
once every shard has reported its newest push, and a push that only some shards have is counted as partial.

This module is pure: it does no I/O and reads no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from downpour.protos import parameter_server_pb2 as pb
from downpour.ps.coordinator.ledger import Ledger

Incarnation = tuple[int, int]  # worker, incarnation


@dataclass
class _Orphans:
    leases: list[int]
    view: int
    waiting: set[int]
    newest: dict[int, pb.DepartedWorker] = field(default_factory=dict)


class OrphanedLeases:
    """Keeps the leases of workers that have left until they are settled.

    Attributes:
        partial: The number of pushes so far that some shards have and others lack.
    """

    def __init__(self) -> None:
        """Create a collection that holds no leases."""
        self.partial = 0
        self._open: dict[Incarnation, _Orphans] = {}

    def __len__(self) -> int:
        """Return the number of workers whose leases are not settled yet."""
        return len(self._open)

    def begin(self, worker: int, incarnation: int, view: int, ledger: Ledger, shards: int) -> None:
        """Suspend the leases of a worker that left with a view, until each of `shards` shards has reported."""
        self._open[worker, incarnation] = _Orphans(ledger.suspend(worker), view, set(range(shards)))

    def record(self, shard: int, departed: pb.DepartedWorker) -> None:
        """Record the newest push that a shard has of a worker that has left."""
        orphans = self._open.get((departed.worker, departed.incarnation))
        if orphans is not None:
            orphans.newest[shard] = departed

    def seen(self, shard: int, view: int, ledger: Ledger) -> None:
        """Settle the leases that waited only for this shard, which has reported on all departures up to a view."""
        for incarnation, orphans in list(self._open.items()):
            if orphans.view <= view:
                orphans.waiting.discard(shard)
            if not orphans.waiting:
                del self._open[incarnation]
                self._settle(orphans, ledger)

    def _settle(self, orphans: _Orphans, ledger: Ledger) -> None:
        numbers = [push.seq for push in orphans.newest.values()] or [0]
        self.partial += max(numbers) - min(numbers)
        for lease in orphans.leases:
            reached = max((push.stop for push in orphans.newest.values() if push.lease == lease), default=0)
            ledger.settle(lease, reached)

    def restore_partial(self, count: int) -> None:
        """Continue the count of pushes that only some shards have applied."""
        self.partial = count

    def clear(self) -> None:
        """Drop everything: the leases do not exist any more."""
        self._open.clear()
