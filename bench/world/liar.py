"""A Byzantine worker, which claims in one push what it must not.

It claims the samples of another lease, samples of its own lease that are not the next ones, or to be another
incarnation.
"""

from __future__ import annotations

from collections.abc import Callable

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.frame import Decoder, encode
from downpour.ps.coordinator.ledger import Ledger

UNKNOWN_KIND = 77  # of a task


class Liar:
    """Alters the header of one push of a process on its way to the shards, which must refuse it."""

    def __init__(self, push: int, ledger: Callable[[], Ledger | None], told: Callable[[bytes], None]) -> None:
        """Prepare to alter one push.

        Args:
            push: The number of the push, from 1.
            ledger: A function that returns the ledger of the job.
            told: A callback that receives the altered push.
        """
        self._push, self._ledger, self._told, self._seen = push, ledger, told, 0

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
        if self._seen < self._push or not self._claim(frame.header):
            return message
        altered = next(encode(frame.header, frame.payload))
        self._told(altered)
        return altered

    def _claim(self, header: pb.Request) -> bool:
        """Write a false claim to a header; return False if no other lease exists that it could claim."""
        size, ledger = header.stop - header.start, self._ledger()
        if self._push % 3 == 0:
            header.incarnation += 1
            return True
        if self._push % 3 == 1:
            header.start, header.stop = header.start + size, header.stop + size
            return True
        others = [lease for lease in (ledger.held if ledger else ()) if lease.number != header.lease]
        if not others:
            return False
        lease = others[0]
        header.lease, header.epoch, header.start = lease.number, lease.epoch, lease.next
        header.stop = min(lease.next + size, lease.stop)
        return header.start < header.stop


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
