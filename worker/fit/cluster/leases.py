"""The leases of a script's worker, shared by the thread that reads the data and the thread that pushes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import Unsupported

if TYPE_CHECKING:
    from downpour.worker.fit.cluster.member import ScriptWorker

LONGEST_WAIT_S = 600.0


class Span(NamedTuple):
    """The origin of samples: positions `[start, stop)` of the permutation of an epoch, under one lease.

    Attributes:
        session: The number of sessions of this worker that had ended when the samples were leased.
    """

    lease: int
    epoch: int
    start: int
    stop: int
    session: int = 0


class Leases:
    """The spans of the batches of a lease that are not pushed yet.

    The thread that reads the data adds them, the thread that pushes takes them. Each batch carries its span, so that
    a batch of a session that has ended is recognised: its samples are leased again, and it must not be pushed.
    """

    def __init__(self, member: ScriptWorker) -> None:
        """Create a set of leases that is empty at first.

        Args:
            member: The worker that requests leases.
        """
        self._member = member
        self._waiting: set[Span] = set()  # batches that are read and have no outcome
        self._last: Span | None = None  # of the batch that was pushed last
        self._session = self._stop = 0
        self._changed = threading.Condition()

    def next_lease(self) -> Span | None:
        """Wait until the last lease is pushed, and return the next one; None at the end of the epoch or while draining.

        Raises:
            Unsupported: A batch was not pushed for a long time, because something drops it.
        """
        with self._changed:
            # A batch of a worker that drains need not be pushed before the epoch ends.
            if not self._changed.wait_for(lambda: not self._waiting or self._member.draining, LONGEST_WAIT_S):
                raise Unsupported(
                    "every batch of a LeasedDataset must be pushed. Received: none for "
                    f"{LONGEST_WAIT_S:g} s. Do not drop or cache batches."
                )
            session = self._session
        while not self._member.draining:
            task = self._member.lease()
            if task.kind == pb.TRAIN:
                self._stop = task.stop
                return Span(task.lease, task.epoch, task.start, task.stop, session)
            if task.kind == pb.END:
                return None
        return None

    def add(self, span: Span) -> bool:
        """Add the span of a batch that is about to be used; return False if it must not be used.

        The job may be draining, or the session of the lease may have ended.
        """
        with self._changed:
            if self._member.draining or span.session != self._session:
                return False
            self._waiting.add(span)
            return True

    def valid(self, span: Span) -> bool:
        """Return whether the batch of a span may be pushed, because the session of its lease has not ended."""
        with self._changed:
            return span in self._waiting or span == self._last

    def is_last(self, span: Span) -> bool:
        """Return whether a batch is the last of its lease, after which its worker requests the next one."""
        return bool(span.lease) and span.stop == self._stop

    def is_pushed(self, span: Span) -> bool:
        """Return whether a batch has been pushed already, by another optimizer of its step."""
        with self._changed:
            return span == self._last

    def pushed(self, span: Span) -> None:
        """Record that the push of a batch has an outcome."""
        with self._changed:
            self._waiting.discard(span)
            self._last = span
            self._changed.notify_all()

    def clear(self) -> None:
        """Void all leases, because the session or the epoch has ended."""
        with self._changed:
            self._waiting.clear()
            self._last = None
            self._session += 1
            self._changed.notify_all()
