"""Ends a worker whose main thread is in a step, or in the compiler, beyond the time limit."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn, Protocol

from downpour.protos.logs import log
from downpour.protos.system import clock, threads

TICK_S = 0.1
GRACE_S = 2.0  # grace period for the worker's main thread to finish its batch
LAST_S = 1.0  # from the end of the job until the worker has ended


class JobState(Protocol):
    """The part of a `Session` that a watchdog needs."""

    @property
    def ending(self) -> bool:
        """Whether the end of the job is awaited."""

    @property
    def over(self) -> str:
        """The phase in which the job is over; empty until then."""


class Watchdog:
    """A thread that ends a worker's process in time.

    A step of many seconds, or a compilation, cannot be interrupted, and Python handles no signal before its end. The
    watchdog therefore abandons the batch, does the last tasks of the job if it is ending, and exits the process.
    """

    def __init__(
        self,
        job: JobState,
        finish: Callable[[], int],
        leave: Callable[[], None],
        exit_process: Callable[[int], NoReturn] = threads.exit_process,
    ) -> None:
        """Build a watchdog that has not started yet.

        Args:
            job: The state of the job, as the heartbeats report it.
            finish: A function that does the last tasks of the job, in the watchdog's thread, and returns the exit code.
            leave: A function that leaves the job.
            exit_process: A function that exits the process with a code.
        """
        self._job, self._finish, self._leave, self._exit = job, finish, leave, exit_process
        self._lock = threads.lock()
        self._in_step = self._acting = False
        self._stopped = threads.event()
        self._signal_pipe: int | None = None

    def start(self) -> None:
        """Start the watchdog in a daemon thread; it runs until `stop` is called or the process exits."""
        threads.start(self._watch, "watchdog")

    def stop(self) -> None:
        """End the thread, because the worker ends by itself."""
        self._stopped.set()

    def observe_signals(self) -> None:
        """Detect signals even while the main thread cannot handle them; must be called from the main thread."""
        self._signal_pipe, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)

    # ------------------------------------------------------------------ in the worker's main thread

    @contextmanager
    def step(self) -> Iterator[None]:
        """Mark the context as a step, during which the watchdog may take over; this thread then blocks forever."""
        with self._lock:
            self._in_step = True
        try:
            yield
        finally:
            with self._lock:
                self._in_step = False
            self.check()

    def check(self) -> None:
        """Block forever if the watchdog has taken over; must be called before anything is sent."""
        if self._acting:
            threads.event().wait()

    # ------------------------------------------------------------------ in the watchdog's thread

    def _watch(self) -> None:
        requested_s = over_s = None
        while not self._stopped.is_set():
            signalled, job, now = self._await_signal(), self._job, clock.monotonic()
            if job.over and over_s is None:
                over_s = now
            if requested_s is None and (signalled or job.ending):
                requested_s = now
            if over_s is not None and now > over_s + LAST_S:
                self._leave()
                self._exit(0 if job.over == "ended" else 1)
            if requested_s is not None and now > requested_s + GRACE_S and self._take_over():
                self._act(job.ending)

    def _await_signal(self) -> bool:
        """Wait for `TICK_S`; return whether a signal arrived in that time."""
        if self._signal_pipe is None:
            self._stopped.wait(TICK_S)
            return False
        readable, _, _ = select.select([self._signal_pipe], [], [], TICK_S)
        return bool(readable and os.read(self._signal_pipe, 4096))

    def _take_over(self) -> bool:
        with self._lock:
            self._acting = self._in_step
        return self._acting

    def _act(self, finish: bool) -> NoReturn:
        code = 0
        try:
            if finish:
                log("this step takes too long for the end of the job: it is abandoned")
                code = self._finish()
            else:
                log("stopped by a signal: left the job in the middle of a step")
        except Exception as error:
            log(f"could not finish the job: {error}")
            code = 1
        self._leave()
        self._exit(code)
