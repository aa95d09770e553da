"""Passes new records of the trace to the watchers of a job; without watchers, no record is kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

KEPT_BYTES = 1 << 20  # limit for a watcher that does not keep up; the oldest records are skipped


class Subscription:
    """The records that one watcher has not received yet.

    Attributes:
        skipped: The bytes that were skipped since the last call of `take`, because the watcher did not keep up.
    """

    def __init__(self) -> None:
        """Create a subscription without records."""
        self.skipped = 0
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._bytes = 0

    def add(self, shard: int, records: bytes) -> None:
        """Keep the records of a shard, and discard the oldest ones above `KEPT_BYTES`."""
        self._waiting.append((shard, records))
        self._bytes += len(records)
        while self._bytes > KEPT_BYTES:
            _, oldest = self._waiting.popleft()
            self._bytes -= len(oldest)
            self.skipped += len(oldest)

    def take(self) -> tuple[dict[int, bytes], int]:
        """Return the waiting records by shard, and how many bytes were skipped; none of them is returned again."""
        records: dict[int, bytearray] = {}
        for shard, part in self._waiting:
            records.setdefault(shard, bytearray()).extend(part)
        skipped, self.skipped, self._bytes = self.skipped, 0, 0
        self._waiting.clear()
        return {shard: bytes(part) for shard, part in records.items()}, skipped


class TraceFeed:
    """Passes the records of all shards of a job to its watchers."""

    def __init__(self) -> None:
        """Create a feed without watchers."""
        self._subscriptions: list[Subscription] = []

    @property
    def watched(self) -> bool:
        """Whether the job has watchers."""
        return bool(self._subscriptions)

    def publish(self, shard: int, records: bytes) -> None:
        """Pass whole records of a shard to all watchers."""
        if records:
            for subscription in self._subscriptions:
                subscription.add(shard, records)

    @contextmanager
    def subscribed(self) -> Iterator[Subscription]:
        """Receive the records that are published within the block."""
        subscription = Subscription()
        self._subscriptions.append(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.remove(subscription)
