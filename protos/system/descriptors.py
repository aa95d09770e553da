"""The descriptors of this process: how many it may open, and some in reserve for what must be written to the disk."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

MOST = 1 << 16
RESERVED = 16  # a checkpoint needs a file, its folder and those of the trace at the same time


def most_open() -> int:
    """Return the number of descriptors that this process may have open, at most `MOST`."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if soft == resource.RLIM_INFINITY else min(soft, MOST)


def raise_limit() -> None:
    """Raise the limit of open descriptors to the most that this process may set, at most `MOST`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


class Reserve:
    """Descriptors that are held so that they are free when a file must be written although all others are in use."""

    def __init__(self) -> None:
        """Create a reserve of no descriptors."""
        self._size, self._users = 0, 0
        self._held: list[int] = []
        self._lock = threading.Lock()

    def hold(self, size: int = RESERVED) -> None:
        """Hold descriptors from now on; fewer if no more are free."""
        with self._lock:
            self._size = size
            self._fill()

    @contextmanager
    def released(self) -> Iterator[None]:
        """Release the descriptors within the block, and hold them again afterwards. Threads may call this together."""
        with self._lock:
            self._users += 1
            while self._held:
                os.close(self._held.pop())
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                self._fill()

    def _fill(self) -> None:
        if self._users:
            return
        with suppress(OSError):
            while len(self._held) < self._size:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))


reserve = Reserve()
