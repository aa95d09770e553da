"""The leases of a script's worker, between the threads that request them, read the data, and push.

A thread of its own requests leases, at most one ahead of the data that are read, so that no step waits for a request.
When there are no more, it waits until the worker has used its own, and asks again: samples of another worker may be
leased again, and the end of the epoch is known only when all are used.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.logs import log
from downpour.worker.fit.cluster.added_gradients import AddedGradients

if TYPE_CHECKING:
    from downpour.worker.fit.cluster.script_worker import ScriptWorker

DRAINING_POLL_S = 0.5
DROPPED = (
    "the gradients that this worker had added up for its next push are dropped, because they contain batches of a "
    "session that has ended. Their samples are leased again{}."
)


class Span(NamedTuple):
    """The origin of samples: positions `[start, stop)` of an epoch, under one lease.

    Attributes:
        session: The number of sessions of this worker that had ended when the samples were leased.
        parts: The number of parts that the positions of the epoch are divided into.
    """

    lease: int
    epoch: int
    start: int
    stop: int
    session: int = 0
    parts: int = 1


class Leases:
    """The leases of one worker in one call of `fit`.

    Each batch carries its span, so that a batch of a session that has ended is recognised: its samples are leased
    again, and it must not be pushed.
    """

    def __init__(
        self,
        member: ScriptWorker,
        batch_samples: int = 0,
        batches_per_push: int = 0,
        since_push: int = 0,
        is_unknown: bool = False,
    ) -> None:
        """Create an object that has requested no lease yet.

        Args:
            member: The worker that requests leases.
            batch_samples: The number of samples in a batch; 0 if every batch is pushed.
            batches_per_push: The number of batches whose gradients are added up for a push; 0 if it is not known. It is
                then the number between the last two pushes.
            since_push: The number of batches that are added up already, by an earlier call of `fit`.
            is_unknown: Whether the train step adds up gradients of a number of batches that is not known.
        """
        self._member = member
        self._batch_samples = batch_samples
        self._added = AddedGradients(batches_per_push, since_push, is_unknown)
        self._changed = threading.Condition()
        self._in_epochs = False  # of Keras, rather than in a loop
        self._requests: _Requests | None = None  # of the current epoch
        self._thread: threading.Thread | None = None  # that requests, or has requested, leases
        self._last: Span | None = None  # of the batch in whose step an optimizer was applied last
        self._returned: Span | None = None  # of the batch that was given back last
        self._unpushed: Span | None = None  # batches in a row, of one lease, that were used without a push
        self._reported = 0  # samples of leases that ended without a push, whose gradients are added up
        self._open: dict[int, int] = {}  # the ends of the leases of this session that are not used up
        self._session = 0

    @property
    def epoch(self) -> int:
        """The epoch of the call of `fit` that the worker trains in, from 0."""
        return self._member.epoch or 0

    def begin_epoch(self) -> None:
        """Begin an epoch of `fit`, and request its first lease."""
        self.end_epoch()
        with self._changed:
            self._in_epochs = True
            self._open.clear()
            self._start()

    def end_epoch(self) -> None:
        """Let `next_lease` return None from now on, because the epoch has ended or must end."""
        with self._changed:
            if self._requests is not None:
                self._requests.end()
            self._changed.notify_all()

    def next_lease(self) -> Span | None:
        """Wait for the next lease; return None at the end of the epoch or while draining.

        Raises:
            DownpourError: The coordinator cannot be reached.
        """
        with self._changed:
            requests = self._requests or self._start()
            while not (requests.ended or requests.next is not None):
                self._changed.wait()
                requests = self._requests or self._start()  # others, if the session of a loop has ended
            if requests.error is not None:
                raise requests.error
            span = requests.take()
            self._changed.notify_all()
            if requests.ended and not self._in_epochs:
                self._requests = None  # a loop without epochs of Keras begins its next pass with another request
            return None if requests.ended or self._member.draining else span

    def _start(self) -> _Requests:
        self._requests = requests = _Requests()
        arguments = (requests, self._thread)
        self._thread = threading.Thread(target=self._request, args=arguments, name="leases", daemon=True)
        self._thread.start()
        return requests

    def _request(self, requests: _Requests, previous: threading.Thread | None) -> None:
        """Request leases until the epoch ends, at most one ahead of the data that are read.

        The thread before this one may still wait for the reply to a request, which says that the worker holds no
        lease: the coordinator would take back what this thread has received.
        """
        if previous is not None:
            previous.join()
        try:
            while (span := self._lease(requests)) is not None:
                with self._changed:
                    if span.session == self._session and not requests.ended:
                        self._open[span.lease] = span.stop
                        self._added.leased(-(-(span.stop - span.start) // (self._batch_samples or 1)))
                        requests.put(span)
                        self._changed.notify_all()
                        self._changed.wait_for(lambda: requests.ended or requests.next is None)
            requests.end()
        except BaseException as error:  # of any kind: otherwise the thread that reads the data would wait without end
            requests.end(error)
        with self._changed:
            self._changed.notify_all()

    def _lease(self, requests: _Requests) -> Span | None:
        """Return the next lease, for which the worker asks ahead until there is none."""
        while not requests.ended and not self._member.draining:
            with self._changed:
                session, ahead, batches = self._session, bool(self._open), self._batches_to_push()
            task = self._member.lease(ahead, *batches)
            if task.kind == pb.END:
                return None
            if task.kind == pb.TRAIN:
                return Span(task.lease, task.epoch, task.start, task.stop, session, max(task.parts, 1))
            with self._changed:
                while self._open and self._session == session and not (requests.ended or self._member.draining):
                    self._changed.wait(DRAINING_POLL_S)
        return None

    def _batches_to_push(self) -> tuple[int, int]:
        """Return the numbers of batches of the next lease until the next push, and of every later push.

        Leases that end with a push leave no gradients behind that a worker has added up at the end.
        """
        return self._added.next_lease if self._batch_samples else (0, 0)

    @property
    def batches_per_push(self) -> int:
        """The number of batches whose gradients are added up for a push; 0 if it is not known yet."""
        return self._added.batches_per_push

    @property
    def added_earlier(self) -> int:
        """The number of batches that an earlier call of `fit` has added up without a push on this worker."""
        return self._added.earlier

    @property
    def unpushed(self) -> int:
        """The number of batches that this worker has used in this call of `fit` since its last push."""
        with self._changed:
            return self._added.unpushed

    def follow(self, earlier: Leases) -> None:
        """Continue the sums of gradients that an earlier call of `fit` with the same train step has left."""
        self._added.follow(earlier._added)

    def add(self, span: Span) -> bool:
        """Return whether a batch may be used: the job is not draining, and the session of the lease has not ended."""
        with self._changed:
            return not self._member.draining and span.session == self._session

    def valid(self, span: Span) -> bool:
        """Return whether the batch of a span may be pushed, because the session of its lease has not ended."""
        with self._changed:
            return span.session == self._session

    def is_last(self, span: Span) -> bool:
        """Return whether a batch is the last of its lease."""
        with self._changed:
            return bool(span.lease) and self._open.get(span.lease) == span.stop

    def is_pushed(self, span: Span) -> bool:
        """Return whether an optimizer has been applied in the step of a batch, so that another one repeats its push."""
        with self._changed:
            return span == self._last

    def start_of(self, span: Span) -> int:
        """Return the first position that the push of a batch covers: that of the batches before it without a push."""
        with self._changed:
            before = self._unpushed
            return before.start if before is not None and before.lease == span.lease else span.start

    def apply(self, span: Span, optimizer: bytes = b"") -> bool:
        """Record that the step of a batch applies an optimizer, and return whether its gradient may be pushed.

        It may not if it contains a batch whose session has ended: those samples are leased again. What it contains of
        a session that lasts is given back then, to be leased again as well, because a sum cannot be divided.

        Args:
            span: The span of the batch.
            optimizer: What distinguishes the optimizer from the others of the step.
        """
        with self._changed:
            self._added.begin(span)
            valid, first = span.session == self._session, span != self._last
            sound = self._added.apply(optimizer, valid) and span != self._returned
            returns = valid and first and not sound
            if valid:
                self._last, self._unpushed = span, None
            if returns:
                self._returned = span
            reported, self._reported = self._reported, 0
        if returns or (reported and not sound):
            log(DROPPED.format(f", except {reported:,} of a lease that had ended" if reported else ""))
        if returns:
            self._member.report_use(span.lease, span.stop, returned=True)
        return sound

    def pushed(self, *spans: Span, ends: bool = True) -> None:
        """Record that a push, which contains some batches, has an outcome.

        Args:
            spans: The spans of the batches in each of whose steps an optimizer was applied.
            ends: Whether the train steps of these batches end with the push. If they may push again, a lease is in use
                until `used`: otherwise the epoch could end on the servers before its last push.
        """
        with self._changed:
            for span in spans if ends else ():
                self._close(span)

    def _close(self, span: Span) -> bool:
        """Return whether a batch is the last one of its lease, which is then used up."""
        if span.session != self._session or self._open.get(span.lease) != span.stop:
            return False
        del self._open[span.lease]
        self._changed.notify_all()
        return True

    def used(self, span: Span) -> None:
        """Record the end of a train step; batches at the end of a lease that it has not pushed are reported."""
        start = self.start_of(span)
        with self._changed:
            self._added.begin(span)
            if span.session != self._session:
                self._added.void_batch()
                return
            ends = self._close(span)
            if span == self._last:
                return
            self._unpushed = None if ends else span._replace(start=start)
            self._reported += span.stop - start if ends else 0
        if ends:
            self._member.report_use(span.lease, span.stop)

    def void(self) -> None:
        """Void all leases, and the gradients that are added up, because the session has ended."""
        with self._changed:
            self._added.void()
        self.clear()

    def clear(self) -> None:
        """Void all leases, because the epoch or the session has ended."""
        with self._changed:
            self._last = self._unpushed = self._returned = None
            self._added.clear()
            self._session += 1
            self._open.clear()
            if self._requests is not None:
                self._requests.take()
                if not self._in_epochs:
                    self._requests.end()
                    self._requests = None
            self._changed.notify_all()


class _Requests:
    """What the thread that requests the leases of one epoch has received.

    Attributes:
        next: The lease that was received and is not read yet.
        ended: Whether no further lease is wanted, or there is none.
        error: The error that ended the requests.
    """

    def __init__(self) -> None:
        """Build the state before the first request."""
        self.next: Span | None = None
        self.ended = False
        self.error: BaseException | None = None

    def put(self, span: Span) -> None:
        """Offer a lease to the thread that reads the data."""
        self.next = span

    def take(self) -> Span | None:
        """Return the lease that is offered, which is no longer offered then."""
        span, self.next = self.next, None
        return span

    def end(self, error: BaseException | None = None) -> None:
        """Offer no lease any more, because of an error if there is one."""
        self.error = self.error or error
        self.ended = True
