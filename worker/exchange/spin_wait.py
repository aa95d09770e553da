"""Receiving a reply that is likely to arrive soon by polling instead of blocking."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import TypeVar

Received = TypeVar("Received")
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
        limit_bytes = self._limit_bytes
        return self._wait(lambda flags: line.recv(limit_bytes, flags))

    def receive_into(self, line: socket.socket, block: memoryview) -> int:
        """Receive the next bytes into a block and return their number; 0 if the other side has closed the socket.

        Raises:
            OSError: `socket.recv_into` raises it, with the socket's own deadline.
        """
        return self._wait(lambda flags: line.recv_into(block, 0, flags))

    def _wait(self, receive: Callable[[int], Received]) -> Received:
        begin = self._clock()
        received = self._poll(receive, begin + SPIN_S) if self._usual_s < SPIN_S else None
        if received is None:
            received = receive(0)
        self._usual_s += WEIGHT * (min(self._clock() - begin, COUNTED_S) - self._usual_s)
        return received

    def _poll(self, receive: Callable[[int], Received], until: float) -> Received | None:
        while self._clock() < until:
            try:
                return receive(socket.MSG_DONTWAIT)
            except BlockingIOError:
                os.sched_yield()
        return None
