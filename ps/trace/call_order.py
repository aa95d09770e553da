"""The recorded order of the calls on a shard, in which the replay of a script admits them.

A replay runs the script in as many processes as its run had. What a worker receives depends on the order in which the
servers served all workers, and on nothing else that differs between two runs; a server that follows the recorded order
therefore repeats the run.

This module is pure: it does no I/O and reads no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

from downpour.protos.errors import InvalidRequest
from downpour.ps.trace.call_log import Call, CallLog, epoch_of

REQUESTS = frozenset({Call.PUSH, Call.PULL, Call.ASSIGN})  # which a worker makes one after the other
JOINS = frozenset({Call.JOIN, Call.JOIN_RESTING})
DRIVEN = JOINS | {Call.REST, Call.RESUME, Call.FLUSH}  # which the record makes, instead of the coordinator
ORDERED = REQUESTS | {Call.BEGIN, Call.RATES, Call.LEASE}  # which wait for their turn


class CallOrder(CallLog):
    """A call log that admits calls in the order of a recorded one.

    The objects whose requests wait for their turn are constructed with the order. They therefore register callbacks
    with `add_advance_callback`, rather than being arguments of its constructor.

    Attributes:
        made: The number of calls so far.
    """

    def __init__(self, recorded: np.ndarray) -> None:
        """Create an order of which no call has been made.

        Args:
            recorded: The calls of a shard in all calls of `fit`.
        """
        super().__init__()
        columns = (recorded[name].tolist() for name in ("call", "worker", "seq"))
        calls = [
            (Call(call), worker, seq)
            for call, worker, seq in zip(*columns, strict=True)
            if call in ORDERED | DRIVEN | {Call.MARK, Call.LEASE_SIZE}
        ]
        self._left = deque(call for call in calls if call[0] != Call.LEASE_SIZE)
        self._requests: dict[int, deque[tuple[Call, int]]] = {}
        self._leases: dict[int, deque[int]] = {}
        self._sizes: dict[int, deque[int]] = {}
        for call, worker, seq in calls:
            if call in REQUESTS:
                self._requests.setdefault(worker, deque()).append((call, seq if call == Call.PUSH else 0))
            elif call == Call.LEASE:
                self._leases.setdefault(worker, deque()).append(seq)
            elif call == Call.LEASE_SIZE:
                self._sizes.setdefault(worker, deque()).append(seq)
        self._present: set[int] = set()  # workers that have joined this call of `fit`
        self._on_advance: list[Callable[[], None]] = []
        self.made = 0

    def add_advance_callback(self, callback: Callable[[], None]) -> None:
        """Register a function that is called after every call of the record, which may make others possible."""
        self._on_advance.append(callback)

    @property
    def drives(self) -> bool:
        """Whether the record decides when workers rest and resume, and when buffered pushes are applied."""
        return True

    @property
    def driven(self) -> tuple[Call, int] | None:
        """The next call, with its worker, if the record makes it; a worker that joins must be present."""
        if not self.on or not self._left or self._left[0][0] not in DRIVEN:
            return None
        call, worker, _ = self._left[0]
        return (call, worker) if call not in JOINS or worker in self._present else None

    def pass_driven(self) -> None:
        """Go on after the next call has been made."""
        self._left.popleft()
        self._advance()

    @property
    def target(self) -> int | None:
        """The version whose weights must be written before the next call; None if there is none."""
        return self._left[0][2] if self.on and self._left and self._left[0][0] == Call.MARK else None

    def pass_mark(self) -> None:
        """Go on after the weights have been written."""
        self._left.popleft()
        self._advance()

    @property
    def awaited(self) -> str:
        """The call that is awaited, as a phrase for a message."""
        if not self._left:
            return "none"
        call, worker, seq = self._left[0]
        return f"{call.name} {seq} of worker {worker}" if call == Call.PUSH else f"{call.name} of worker {worker}"

    def admits(self, call: Call, worker: int = 0, seq: int = 0) -> bool:
        """Return whether a call is the next one of the record."""
        if not self.on or call not in ORDERED:
            return True
        return bool(self._left) and self._is_next(call, worker, seq)

    def _is_next(self, call: Call, worker: int, seq: int) -> bool:
        expected, of, number = self._left[0]
        if expected != call:
            return False
        return call in (Call.BEGIN, Call.RATES) or (of == worker and (call != Call.PUSH or number == seq))

    def check(self, call: Call, worker: int, seq: int = 0) -> None:
        """Check that a request which must wait is the next one of its worker in the record.

        Raises:
            InvalidRequest: The worker does something else than in the run that is replayed.
        """
        left = self._requests.get(worker)
        expected = left[0] if left else None
        if expected != (call, seq if call == Call.PUSH else 0):
            was = "none" if expected is None else f"{expected[0].name} {expected[1] or ''}".strip()
            raise InvalidRequest(
                f"a script that is replayed must do what it did in its run. Received: {call.name} {seq or ''}".rstrip()
                + f" of worker {worker}, whose next request in the record is {was}. Seed what it draws, and let it "
                "depend neither on the time nor on files that have changed."
            )

    def lease_waits(self, worker: int, epoch: int) -> bool:
        """Return whether a worker that asks for samples of an epoch must wait for other calls of the record.

        Without a further lease in the record it waits until all leases of the epoch are granted, so that none is left.
        """
        own = self._leases.get(worker)
        if own and epoch_of(own[0]) == epoch:
            return not self.admits(Call.LEASE, worker)
        return any(left and epoch_of(left[0]) == epoch for left in self._leases.values())

    def next_lease_samples(self, worker: int) -> int:
        """Return the number of samples of the next lease of a worker; 0 in a record that does not have it."""
        sizes = self._sizes.get(worker)
        return sizes[0] if sizes else 0

    def add(self, call: Call, worker: int = 0, incarnation: int = 0, seq: int = 0) -> None:
        """Record a call that has been made, and admit the next one."""
        super().add(call, worker, incarnation, seq)
        if not self.on:
            return
        if call in JOINS:
            self._present.add(worker)
            self._advance()
        if call not in ORDERED:
            return
        if not self._left or not self._is_next(call, worker, seq):
            raise InvalidRequest(
                f"the next call in the record must be made. Received: {call.name} {seq} of worker {worker}; the record "
                f"has {self.awaited}. Report this."
            )
        self._left.popleft()
        if call == Call.BEGIN:
            self._present.clear()
        elif call in REQUESTS:
            self._requests[worker].popleft()
        elif call == Call.LEASE:
            self._leases[worker].popleft()
            if self._sizes.get(worker):
                self._sizes[worker].popleft()
        self._advance()

    def _advance(self) -> None:
        self.made += 1
        for callback in self._on_advance:
            callback()
