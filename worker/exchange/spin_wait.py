"""Receiving a reply that is likely to arrive soon by polling instead of blocking."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

SPIN_S = 0.0005
COUNTED_S = 4 * SPIN_S  # limit of one wait in the average, because a single long wait predicts little
WEIGHT = 1 / 8  # weight of the last wait in the average


class SpinWait:
    """Receives messages; polls for `SPIN_S` before it blocks if recent waits have been shorter than that.

    Waking a process costs both processes a good part of the time of a small update, and a scheduler that observes one
    process waking several others moves it between cores. While polling, the core is yielded continuously, above all
    to the shard. A moving average of the waits predicts the next one.
    """

    def __init__(self, limit_bytes: int, clock: Callable[[], float] = time.perf_counter) -> None:
        """Build a receiver that expects short waits.

        Args:
            limit_bytes: The size of the largest message.
            clock: A function that returns the time in seconds.
        """
        self._limit_bytes, self._clock = limit_bytes, clock
        self._usual_s = 0.0

    def receive(self, line: socket.socket) -> bytes:
        """Return the next message; empty if the other side has closed the socket.

        Raises:
            OSError: `socket.recv` raises it, with the socket's own deadline.
        """
        begin = self._clock()
        message = self._poll(line, begin + SPIN_S) if self._usual_s < SPIN_S else None
        if message is None:
            message = line.recv(self._limit_bytes)
        self._usual_s += WEIGHT * (min(self._clock() - begin, COUNTED_S) - self._usual_s)
        return message

    def _poll(self, line: socket.socket, until: float) -> bytes | None:
        while self._clock() < until:
            try:
                return line.recv(self._limit_bytes, socket.MSG_DONTWAIT)
            except BlockingIOError:
                os.sched_yield()
        return None
