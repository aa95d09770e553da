"""Requests to stop, which reach the launcher as signals: the first asks it to drain the job, the second to stop it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from downpour.deploy.view.terminal import silence

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequests:
    """Counts the signals that ask this process to stop, instead of letting them end it.

    Attributes:
        count: The number of signals received.
        changed: Set whenever one is received.
    """

    def __init__(self) -> None:
        """Build a counter that handles no signals yet."""
        self.count = 0
        self.changed = threading.Event()

    @contextmanager
    def handled(self, numbers: Sequence[signal.Signals] = STOPPING) -> Iterator[None]:
        """Count some signals within the block; the previous handlers are restored after it."""
        if threading.current_thread() is not threading.main_thread():
            yield  # such as a trial of Ray Tune, which another thread of its process ends
            return
        before = [(number, signal.signal(number, self._receive)) for number in numbers]
        try:
            yield
        finally:
            for number, handler in before:
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self.changed.set()
        if number == signal.SIGHUP:  # the terminal is gone, and writing to it would fail
            silence()
