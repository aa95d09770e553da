"""The leases of a script's worker, between the thread that reads the data and the thread that pushes."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import Unsupported

if TYPE_CHECKING:
    from downpour.worker.fit.cluster.member import ScriptWorker

LONGEST_WAIT_S = 600.0


class Span(NamedTuple):
    """The origin of a batch: positions `[start, stop)` of the epoch's permutation, under one lease."""

    lease: int
    start: int
    stop: int


class Leases:
    """The spans of the batches of a lease that are not pushed yet.

    The thread that reads the data adds them, the thread that pushes takes them.
    """

    def __init__(self, member: ScriptWorker) -> None:
        """Build an empty queue.

        Args:
            member: The worker that requests leases.
        """
        self._member = member
        self._spans: deque[Span] = deque()
        self._in_flight = False
        self._changed = threading.Condition()

    def next_lease(self) -> pb.Task | None:
        """Wait until the last lease is pushed, and return the next one; None at the end of the epoch or while draining.

        Raises:
            Unsupported: A batch was not pushed for a long time, because something drops it.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: not self._spans and not self._in_flight, LONGEST_WAIT_S):
                raise Unsupported(
                    "every batch of a LeasedDataset must be pushed. Received: none for "
                    f"{LONGEST_WAIT_S:g} s. Do not drop or cache batches."
                )
        while not self._member.draining:
            task = self._member.lease()
            if task.kind == pb.TRAIN:
                return task
            if task.kind == pb.END:
                return None
        return None

    def add(self, span: Span) -> bool:
        """Add the span of a batch that is about to be used; return False if the job is draining and it must not be."""
        with self._changed:
            if self._member.draining:
                return False
            self._spans.append(span)
            return True

    def next_span(self) -> Span | None:
        """Remove and return the span of the batch that is pushed next; None if there is none."""
        with self._changed:
            self._in_flight = bool(self._spans)
            return self._spans.popleft() if self._spans else None

    def pushed(self) -> None:
        """Record that the push of the last span has an outcome."""
        with self._changed:
            self._in_flight = False
            self._changed.notify_all()

    def clear(self) -> None:
        """Remove all spans, because the session or the epoch of their lease has ended."""
        with self._changed:
            self._spans.clear()
            self._in_flight = False
            self._changed.notify_all()
