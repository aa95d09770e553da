"""The batches whose gradients each worker of a script adds up before it pushes, so that leases end with a push.

If P workers add up n batches each, up to P (n - 1) gradients are left at the end; one process leaves n - 1 at most.
"""

from __future__ import annotations

from collections.abc import Collection


class PushGroups:
    """The place of every worker in its group of batches, from the leases that it has received in one call of `fit`.

    All workers run the same script: the number of batches of a push that one of them reports holds for all.

    Attributes:
        each: The number of batches of a push; 0 if it is not known, 1 if every batch is pushed.
        is_unknown: Whether workers add up gradients, and the number of batches of a push is not known yet.
    """

    def __init__(self) -> None:
        """Build the groups of a call in which no sample is leased yet."""
        self.each = 0
        self.is_unknown = False
        self._leased: dict[int, int] = {}  # batches after a push, or since the call began

    def asked(self, worker: int, to_push: int, per_push: int) -> None:
        """Record what a worker states when it asks for a lease.

        Args:
            worker: The number of the worker.
            to_push: The number of batches of the next lease until its next push; 0 if it pushes every batch.
            per_push: The number of batches of every later push; 0 if it does not know.
        """
        self.each = per_push or self.each
        self.is_unknown = bool(to_push) and not self.each
        if per_push:
            self._leased[worker] = per_push - to_push

    def granted(self, worker: int, batches: int) -> None:
        """Record a lease of so many batches."""
        self._leased[worker] = self._leased.get(worker, 0) + batches

    def needs(self, worker: int) -> int:
        """Return the number of batches until the next push of a worker, after its leases so far; 0 if not known."""
        return self.each - self._leased.get(worker, 0) % self.each if self.each > 1 else 0

    def size(self, worker: int, batches: int) -> int:
        """Return the number of batches of a lease that ends with a push and has about `batches`."""
        first = self.needs(worker)
        return first + max(0, batches - first) // self.each * self.each if first else batches

    def leaves(self, worker: int, free: int, present: Collection[int]) -> bool:
        """Return whether a worker must leave the free batches to another one.

        That is the one that is closest to its push, of several the one with the lowest number, if the batches are too
        few for a push. So one worker at most has a part of a push when an epoch ends. While the number of batches of
        a push is not known, that worker trains alone.
        """
        if self.is_unknown or free < self.needs(worker):
            return worker != min({*present, worker}, key=lambda each: (self.needs(each), each))
        return False
