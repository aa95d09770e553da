"""The leases of samples: every sample of every epoch is used exactly once.

Positions are indices into the permutation of (seed, epoch), not sample numbers.

This module is pure: it does no I/O and reads no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from downpour.protos.errors import InvalidRequest
from downpour.ps.coordinator.push_groups import PushGroups
from downpour.ps.core.epoch_order import part_bounds

Span = tuple[int, int, int]  # epoch, start, stop
LEASES_PER_WORKER = 8  # into which the free samples of a script's epoch are divided
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
            return self._new_lease(worker, *self._returned.popleft())
        if self._epoch < self.epochs:
            return self._new_lease(worker, *self._take(self.lease_samples))
        return None

    def _take(self, samples: int) -> Span:
        """Take the next positions that were never leased, at most as many as requested."""
        epoch, start = self._epoch, self._position
        stop = min(start + samples, self.samples)
        self._epoch, self._position = (epoch, stop) if stop < self.samples else (epoch + 1, 0)
        return epoch, start, stop

    def _new_lease(self, worker: int, epoch: int, start: int, stop: int) -> Lease:
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
    """The ledger of a single epoch of a script's `fit`, with any epoch number.

    With a batch size, leases are whole batches and become smaller toward the end of the epoch (guided self-scheduling,
    Polychronopoulos and Kuck 1987): a lease is at most a fixed part of the samples that are free. With parts, every
    part belongs to a worker, and other workers receive its samples only while that worker is absent.
    """

    def __init__(
        self,
        epoch: int,
        samples: int,
        lease_samples: int,
        batch_samples: int = 0,
        workers: int = 0,
        parts: int = 1,
    ) -> None:
        """Create a ledger in which no position is leased.

        Args:
            epoch: The number of the epoch.
            samples: The number of samples in the epoch.
            lease_samples: The largest number of samples in a lease.
            batch_samples: The number of samples in a batch; 0 for leases of one size.
            workers: The number of workers that the epoch is divided among; 0 for leases of one size.
            parts: The number of parts, which belong to the workers of these numbers; 1 if any may use any sample.
        """
        super().__init__(samples, 1, lease_samples)
        self._number, self._batch, self._workers, self.parts = epoch, batch_samples, workers, parts
        self._bounds = part_bounds(samples, batch_samples, parts) if parts > 1 else [0, samples]
        if parts > 1:  # the parts are free, one after the other, and nothing else is
            ends = zip(self._bounds[:-1], self._bounds[1:], strict=True)
            self._returned = deque((0, start, stop) for start, stop in ends if start < stop)
            self._epoch, self._position = 1, 0

    @property
    def has_batches(self) -> bool:
        """Return whether leases consist of whole batches, all of which must be used before the epoch ends."""
        return bool(self._batch)

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

    def held_by(self, worker: int, number: int) -> Lease | None:
        """Return the lease of a number if the worker holds it."""
        lease = self._leases.get(number)
        return lease if lease is not None and lease.worker == worker else None

    def give_back(self, number: int, stop: int) -> None:
        """Free the next positions of a lease, up to `stop`; the lease ends with its last position."""
        lease = self._leases[number]
        self._returned = deque(sorted([*self._returned, (lease.epoch, lease.next, stop)]))
        lease.next = stop
        if stop == lease.stop:
            del self._leases[number]

    def lease_to(
        self, worker: int, present: Collection[int], groups: PushGroups | None = None, samples: int = 0
    ) -> Lease | None:
        """Lease the next positions to a worker; None if it can receive none now.

        Args:
            worker: The number of the worker.
            present: The workers that live, whose parts are their own.
            groups: The batches that workers add up for a push: the lease ends with a push if the samples suffice. None
                if every batch is pushed.
            samples: The number of samples in the lease, as a replay repeats it; 0 to choose it.
        """
        if not self._batch:
            return self.lease(worker)
        groups = groups or PushGroups()
        size = samples or self._size(worker, present, groups)
        span = self._next_span(worker, size, present) if size else None
        if span is None:
            return None
        groups.granted(worker, -(-(span[2] - span[1]) // self._batch))
        return self._new_lease(worker, *span)

    def _size(self, worker: int, present: Collection[int], groups: PushGroups) -> int:
        """Return the number of samples of the next lease of a worker; 0 if it must leave the rest to another one."""
        free = sum(stop - start for _, start, stop in self._returned)
        free += self.samples - self._position if self._epoch < 1 else 0
        size = max(self.lease_samples, self._batch)
        if self._workers:
            size = min(size, -(-free // (LEASES_PER_WORKER * self._workers)))
        if self.parts == 1 and groups.leaves(worker, -(-free // self._batch), present):
            return 0
        return self._batch * groups.size(worker, -(-size // self._batch))

    def _next_span(self, worker: int, size: int, present: Collection[int]) -> Span | None:
        index = next((i for i, span in enumerate(self._returned) if self._may_use(worker, span, present)), None)
        if index is None:
            return self._take(size) if self._epoch < 1 else None
        epoch, start, stop = self._returned[index]
        del self._returned[index]
        if start + size < stop:
            self._returned.insert(index, (epoch, start + size, stop))
            stop = start + size
        return epoch, start, stop

    def _may_use(self, worker: int, span: Span, present: Collection[int]) -> bool:
        if self.parts == 1:
            return True
        part = next(part for part in range(self.parts) if span[1] < self._bounds[part + 1])
        return part == worker or part not in present

    def settle(self, number: int, reached: int) -> None:
        """End a suspended lease, as `Ledger.settle` does; a lease of an earlier epoch changes nothing."""
        if number in self._leases:
            super().settle(number, reached)
