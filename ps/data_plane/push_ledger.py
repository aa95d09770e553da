"""The interface by which a shard checks pushes for leased samples; shard 0 decides for all shards."""

from __future__ import annotations

from typing import Protocol

from downpour.ps.core.push import Push


class PushLedger(Protocol):
    """Decides whether pushes for leased samples count; only shard 0 has one."""

    def check(self, push: Push) -> None:
        """Raise InvalidRequest unless the worker may use the samples of the push now."""

    def used(self, push: Push) -> None:
        """Mark the samples of a push as used, because the shard has accepted it."""

    @property
    def draining(self) -> bool:
        """Return whether workers must stop after the batch that they have."""


class EveryPushCounts:
    """The ledger of every shard but shard 0: it accepts every push, because shard 0 decides."""

    draining = False

    def check(self, push: Push) -> None:
        """Accept the push without a check."""

    def used(self, push: Push) -> None:
        """Ignore the samples of the push, which only shard 0 records."""
