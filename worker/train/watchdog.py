"""Acts for a worker whose own thread is in a step, or in the compiler, for longer than there is time."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn, Protocol

from downpour.protos.logs import log

TICK_S = 0.1
GRACE_S = 2.0  # for the worker's own thread to come to the end of its batch
LAST_S = 1.0  # from the end of the job until the worker has ended


class Beat(Protocol):
    """The part of a heartbeat that a deputy needs."""

    @property
    def hurried(self) -> bool:
        """Whether somebody waits for the end of the job."""

    over: str


class Watchdog:
    """Watches that a worker ends in time, from a thread of its own.

    A step of many seconds, or a compilation, cannot be broken off, nor does Python hear a signal before its end. So
    the deputy gives the batch up, finishes the job in the worker's place if that is wanted, and ends the process.
    """

    def __init__(
        self,
        beat: Callable[[], Beat],
        finish: Callable[[], int],
        goodbye: Callable[[], None],
        leave: Callable[[int], NoReturn] = os._exit,
    ) -> None:
        """Watches nothing yet.

        Args:
            beat: The heartbeat of the present session.
            finish: Does what is left to do for the job, in the deputy's thread; returns the exit code.
            goodbye: Leaves the job.
            leave: Ends the process.
        """
        self._beat, self._finish, self._goodbye, self._leave = beat, finish, goodbye, leave
        self._lock = threading.Lock()
        self._in_step = self._acts = False
        self._stopped = threading.Event()
        self._ear: int | None = None

    def start(self) -> None:
        """Begins to watch."""
        threading.Thread(target=self._watch, name="deputy", daemon=True).start()

    def stop(self) -> None:
        """Ends the watch: the worker has ended by itself."""
        self._stopped.set()

    def hear_signals(self) -> None:
        """Has signals noticed while the main thread, from which this is to be called, hears none."""
        self._ear, mouth = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)

    # ------------------------------------------------------------------ in the worker's own thread

    @contextmanager
    def step(self) -> Iterator[None]:
        """While it lasts, the deputy may take over; then this thread goes no further."""
        with self._lock:
            self._in_step = True
        try:
            yield
        finally:
            with self._lock:
                self._in_step = False
            self.check()

    def check(self) -> None:
        """To be called before anything is sent: comes back only if the deputy has not taken over."""
        if self._acts:
            threading.Event().wait()

    # ------------------------------------------------------------------ in the deputy's

    def _watch(self) -> None:
        asked_s = over_s = None
        while not self._stopped.is_set():
            signalled, beat, now = self._hears(), self._beat(), time.monotonic()
            if beat.over and over_s is None:
                over_s = now
            if asked_s is None and (signalled or beat.hurried):
                asked_s = now
            if over_s is not None and now > over_s + LAST_S:
                self._goodbye()
                self._leave(0 if beat.over == "ended" else 1)
            if asked_s is not None and now > asked_s + GRACE_S and self._take_over():
                self._act(beat.hurried)

    def _hears(self) -> bool:
        """Waits a moment; returns whether a signal came meanwhile."""
        if self._ear is None:
            self._stopped.wait(TICK_S)
            return False
        heard, _, _ = select.select([self._ear], [], [], TICK_S)
        return bool(heard and os.read(self._ear, 4096))

    def _take_over(self) -> bool:
        with self._lock:
            self._acts = self._in_step
        return self._acts

    def _act(self, finish: bool) -> NoReturn:
        code = 0
        try:
            if finish:
                log("this step takes too long for the end of the job: it is given up")
                code = self._finish()
            else:
                log("asked to stop: left the job in the middle of a step")
        except Exception as error:
            log(f"could not finish the job: {error}")
            code = 1
        self._goodbye()
        self._leave(code)
