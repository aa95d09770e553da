"""A Byzantine worker, which claims in one push what it must not.

It claims to be another incarnation of itself or another worker, to know another generation, the samples of another
lease, or samples of its own lease that are not the next ones.
"""

from __future__ import annotations

from typing import Protocol

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.frame import Decoder, encode
from downpour.ps.coordinator.ledger import SUSPENDED, Lease, Ledger

UNKNOWN_KIND = 77  # of a task
KINDS_OF_CLAIMS = 5


class ByzantineView(Protocol):
    """What a Byzantine worker knows of the job, and the record of its false claims."""

    @property
    def ledger(self) -> Ledger | None:
        """The ledger of the job."""

    def incarnation_of(self, worker: int) -> int:
        """Return the newest incarnation of a worker."""

    def push_altered(self, message: bytes, of_lease: bool) -> None:
        """Take note of an altered push; `of_lease` is whether it claims samples, which shard 0 alone checks."""


class ByzantineWorker:
    """Alters the header of one push of a process on its way to the shards, which must refuse it."""

    def __init__(self, push: int, view: ByzantineView) -> None:
        """Prepare to alter one push.

        Args:
            push: The number of the push, from 1, which also determines the kind of the claim.
            view: What the worker knows of the job.
        """
        self._push, self._view, self._seen = push, view, 0
        self._sent: set[tuple[int, int]] = set()  # incarnation and number of every push

    def __call__(self, message: bytes) -> bytes:
        """Return a message unchanged or, if it is the chosen push, with a false claim."""
        if self._seen >= self._push:
            return message
        try:
            frame = Decoder(pb.Request, lambda header: 1 << 30).feed(message)
        except Exception:  # noqa: BLE001 - a message of another service
            return message
        if frame is None or frame.header.kind != pb.PUSH_PULL or not frame.header.lease:
            return message
        self._seen += 1
        number = frame.header.incarnation, frame.header.seq
        repeated = number in self._sent
        self._sent.add(number)
        if self._seen < self._push or (repeated and self._of_lease) or not self._claim(frame.header):
            return message  # what a repeated push claims is not read: its outcome is known
        altered = next(encode(frame.header, frame.payload))
        self._view.push_altered(altered, of_lease=self._of_lease)
        return altered

    @property
    def _of_lease(self) -> bool:
        return self._push % KINDS_OF_CLAIMS in (1, 2)

    def _claim(self, header: pb.Request) -> bool:
        """Write a false claim to a header; return False if there is nothing that it could claim."""
        kind, size = self._push % KINDS_OF_CLAIMS, header.stop - header.start
        if kind == 0:
            header.incarnation += 1
            return True
        if kind == 1:
            header.start, header.stop = header.start + size, header.stop + size
            return True
        if kind == 4:
            header.generation += 1 if self._push < KINDS_OF_CLAIMS else -1
            return True
        other = self._other_lease(header, of_another_worker=kind == 3)
        if other is None:
            return False
        if kind == 3:  # an unused number: that of an earlier push would be answered as a duplicate
            header.worker, header.incarnation = other.worker, self._view.incarnation_of(other.worker)
            header.seq += 1000
        header.lease, header.epoch, header.start = other.number, other.epoch, other.next
        header.stop = min(other.next + size, other.stop)
        return header.start < header.stop

    def _other_lease(self, header: pb.Request, of_another_worker: bool) -> Lease | None:
        ledger = self._view.ledger
        leases = [lease for lease in (ledger.held if ledger else ()) if lease.number != header.lease]
        if of_another_worker:
            leases = [lease for lease in leases if lease.worker not in (SUSPENDED, header.worker)]
        return leases[0] if leases else None


class FalseReporter:
    """Alters one report of a worker to the coordinator: it names a kind of task that does not exist."""

    def __init__(self, report: int) -> None:
        """Prepare to alter the report with this number, from 1."""
        self._report, self._seen = report, 0

    def __call__(self, method: str, message: bytes) -> bytes:
        """Return a request of a method unchanged or, if it is the chosen report, with an unknown kind."""
        if not method.endswith("/Report"):
            return message
        self._seen += 1
        if self._seen != self._report:
            return message
        request = pb.ReportRequest.FromString(message)
        request.kind = UNKNOWN_KIND  # type: ignore[assignment]
        return request.SerializeToString()
