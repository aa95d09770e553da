"""Waiting for a reply that is likely to come soon, without falling asleep."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

AWAKE_S = 0.0005
COUNTED_S = 4 * AWAKE_S  # the most that one wait counts as: a single long one tells little of the next
WEIGHT = 1 / 8  # of the last wait among those before it


class SpinWait:
    """Receives messages; stays awake for `AWAKE_S` if waits have been shorter than that lately.

    To wake a process costs its waker and itself a good part of what a small update takes, and a scheduler that sees
    one process wake several moves it between their cores. Who waits awake gives the core away all the time: to the
    shard, above all.
    """

    def __init__(self, limit_bytes: int, clock: Callable[[], float] = time.perf_counter) -> None:
        """Expects short waits.

        Args:
            limit_bytes: The most that a message may have.
            clock: In seconds.
        """
        self._limit_bytes, self._clock = limit_bytes, clock
        self._usual_s = 0.0

    def receive(self, line: socket.socket) -> bytes:
        """The next message; empty if the other side has hung up.

        Raises:
            OSError: As `recv`, with the socket's own deadline.
        """
        begin = self._clock()
        message = self._soon(line, begin + AWAKE_S) if self._usual_s < AWAKE_S else None
        if message is None:
            message = line.recv(self._limit_bytes)
        self._usual_s += WEIGHT * (min(self._clock() - begin, COUNTED_S) - self._usual_s)
        return message

    def _soon(self, line: socket.socket, until: float) -> bytes | None:
        while self._clock() < until:
            try:
                return line.recv(self._limit_bytes, socket.MSG_DONTWAIT)
            except BlockingIOError:
                os.sched_yield()
        return None
