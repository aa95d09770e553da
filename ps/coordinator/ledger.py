"""The leases of samples: every sample of every epoch is used exactly once.

Positions are indices into the permutation of (seed, epoch), not sample numbers.

This module is pure: it does no I/O and reads no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from downpour.protos.errors import InvalidRequest

Span = tuple[int, int, int]  # epoch, start, stop
SUSPENDED = -1  # in place of a worker that has left while the lease is not settled yet


@dataclass
class Lease:
    """Positions `[start, stop)` of an epoch, leased to a worker; those below `next` are used."""

    number: int
    worker: int
    epoch: int
    start: int
    stop: int
    next: int


class Ledger:
    """Leases the positions of all epochs to workers, and takes back the positions that a worker did not use.

    The next epoch's leases begin when all positions of this one are leased: there is no barrier between epochs.
    """

    def __init__(self, samples: int, epochs: int, lease_samples: int) -> None:
        """Create a ledger in which no position is leased.

        Args:
            samples: The number of training samples in an epoch.
            epochs: The number of epochs.
            lease_samples: The number of samples in a lease; a multiple of the batch size keeps batches whole.
        """
        self.samples, self.epochs, self.lease_samples = samples, epochs, lease_samples
        self._used = [0] * epochs
        self._epoch, self._position = 0, 0
        self._returned: deque[tuple[int, int, int]] = deque()
        self._leases: dict[int, Lease] = {}
        self._numbers = 0

    @property
    def total(self) -> int:
        """Return the number of samples in all epochs."""
        return self.samples * self.epochs

    @property
    def used_total(self) -> int:
        """Return the number of samples used so far, in all epochs."""
        return sum(self._used)

    @property
    def epoch(self) -> int:
        """Return the first epoch that is not complete; the last one if all are."""
        return next((epoch for epoch in range(self.epochs) if not self.complete(epoch)), self.epochs - 1)

    @property
    def finished(self) -> bool:
        """Return whether every sample of every epoch is used."""
        return self.used_total == self.total

    @property
    def held(self) -> list[Lease]:
        """Return the leases that workers hold, or held when they left."""
        return list(self._leases.values())

    @property
    def open_leases(self) -> int:
        """Return the number of leases that workers hold."""
        return len(self._leases)

    def used(self, epoch: int) -> int:
        """Return the number of samples of an epoch used so far."""
        return self._used[epoch]

    def complete(self, epoch: int) -> bool:
        """Return whether all samples of an epoch are used."""
        return self._used[epoch] == self.samples

    def lease(self, worker: int) -> Lease | None:
        """Lease the next positions to a worker, returned ones first; None if all are leased or used."""
        if self._returned:
            epoch, start, stop = self._returned.popleft()
        elif self._epoch < self.epochs:
            epoch, start = self._epoch, self._position
            stop = min(start + self.lease_samples, self.samples)
            self._epoch, self._position = (epoch, stop) if stop < self.samples else (epoch + 1, 0)
        else:
            return None
        self._numbers += 1
        lease = Lease(self._numbers, worker, epoch, start, stop, next=start)
        self._leases[lease.number] = lease
        return lease

    def check(self, number: int, worker: int, epoch: int, start: int, stop: int) -> None:
        """Raise InvalidRequest unless the worker may use `[start, stop)` of its lease now."""
        lease = self._leases.get(number)
        if lease is None or lease.worker != worker:
            raise InvalidRequest(
                f"worker {worker} must hold the lease that it pushes for; received lease {number}, which it does not "
                "hold. Request a lease first."
            )
        if lease.epoch != epoch or start != lease.next or not start < stop <= lease.stop:
            raise InvalidRequest(
                f"lease {number} must be used in order, from {lease.next} to at most {lease.stop} of epoch "
                f"{lease.epoch}; received [{start}, {stop}) of epoch {epoch}."
            )

    def use(self, number: int, stop: int) -> None:
        """Mark a checked range, up to `stop`, as used; the lease ends with its last position."""
        lease = self._leases[number]
        self._used[lease.epoch] += stop - lease.next
        lease.next = stop
        if stop == lease.stop:
            del self._leases[number]

    def suspend(self, worker: int) -> list[int]:
        """Suspend the leases of a worker that has left, to be settled later; return their numbers."""
        held = [lease for lease in self._leases.values() if lease.worker == worker]
        for lease in held:
            lease.worker = SUSPENDED
        return [lease.number for lease in held]

    def settle(self, number: int, reached: int) -> None:
        """End a suspended lease: positions below `reached` are used, the others are free."""
        lease = self._leases[number]
        if lease.next < reached <= lease.stop:
            self.use(number, reached)
        if self._leases.pop(number, None) is not None:
            self._returned = deque(sorted([*self._returned, (lease.epoch, lease.next, lease.stop)]))

    def unused(self) -> list[Span]:
        """Return the ranges `(epoch, start, stop)` that were leased once and are not used, in order."""
        held = [(lease.epoch, lease.next, lease.stop) for lease in self._leases.values()]
        return sorted([*self._returned, *held])

    @property
    def position(self) -> tuple[int, int]:
        """Return the epoch and the position from which on nothing has been leased yet."""
        return self._epoch, self._position

    def restore(self, unused: Iterable[Span], epoch: int, position: int) -> None:
        """Restore an earlier state: positions that were not used then are free, and no worker holds a lease.

        Raises:
            ValueError: A ledger of this number of samples and epochs cannot have been in that state.
        """
        spans = sorted(unused)
        limits = [self.samples] * epoch + [position]
        ends = [0] * (epoch + 1)
        valid = epoch < self.epochs or (epoch, position) == (self.epochs, 0)
        for e, start, stop in spans:
            valid = valid and e <= epoch and ends[e] <= start < stop <= limits[e]
            if valid:
                ends[e] = stop
        if not valid or position > self.samples:
            raise ValueError(
                f"a ledger of {self.epochs} epochs of {self.samples:,} samples cannot have been at epoch {epoch}, "
                f"position {position:,} with {len(spans)} free ranges"
            )
        self._used = [self.samples if e < epoch else position if e == epoch else 0 for e in range(self.epochs)]
        for e, start, stop in spans:
            self._used[e] -= stop - start
        self._epoch, self._position = epoch, position
        self._returned, self._leases = deque(spans), {}

    def take_back(self, worker: int) -> int:
        """Take back the positions that a worker leased and did not use; return their number."""
        held = [lease for lease in self._leases.values() if lease.worker == worker]
        for lease in held:
            del self._leases[lease.number]
            self._returned.append((lease.epoch, lease.next, lease.stop))
        self._returned = deque(sorted(self._returned))
        return sum(lease.stop - lease.next for lease in held)


class EpochLedger(Ledger):
    """The ledger of a single epoch of a script's `fit`, with any epoch number."""

    def __init__(self, epoch: int, samples: int, lease_samples: int) -> None:
        """Create a ledger in which no position is leased.

        Args:
            epoch: The number of the epoch.
            samples: The number of samples in the epoch.
            lease_samples: The number of samples in a lease.
        """
        super().__init__(samples, 1, lease_samples)
        self._number = epoch

    def check(self, number: int, worker: int, epoch: int, start: int, stop: int) -> None:
        """Raise InvalidRequest unless the worker may use `[start, stop)` of its lease now."""
        super().check(number, worker, epoch - self._number, start, stop)

    def unused(self) -> list[Span]:
        """Return the ranges `(epoch, start, stop)` that were leased once and are not used, in order."""
        return [(epoch + self._number, start, stop) for epoch, start, stop in super().unused()]

    @property
    def position(self) -> tuple[int, int]:
        """Return the epoch and the position from which on nothing has been leased yet."""
        epoch, position = super().position
        return epoch + self._number, position

    def restore(self, unused: Iterable[Span], epoch: int, position: int) -> None:
        """Restore an earlier state; see `Ledger.restore`."""
        own = [(each - self._number, start, stop) for each, start, stop in unused]
        super().restore(own, epoch - self._number, position)
